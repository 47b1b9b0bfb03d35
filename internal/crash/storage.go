package crash

// The points of component storages over objects, in the order in which a load
// meets them.
const (
	ObjectBefore Name = "storage-object-before" // an object is written, and has no name yet
	ObjectAfter  Name = "storage-object-after"
	StampsBefore Name = "storage-stamps-before" // the times of a table's rows
	StampsAfter  Name = "storage-stamps-after"
	RowsBefore   Name = "storage-rows-before" // a table's rows
	RowsAfter    Name = "storage-rows-after"
	TableBefore  Name = "storage-table-before" // the step that makes it the table
	TableAfter   Name = "storage-table-after"
	TableShown   Name = "storage-table-shown" // people see it, what was there before is not removed yet
	SweepMiddle  Name = "storage-sweep"       // before each object that is removed
	PutBefore    Name = "storage-put-before"  // each small object
	PutAfter     Name = "storage-put-after"
	FileBefore   Name = "storage-file-before" // a file has its contents, and is not listed yet
	FileAfter    Name = "storage-file-after"
)

// Storage returns the points of component storages over objects. They are
// passed more than once.
func Storage() []Name {
	return []Name{
		ObjectBefore, ObjectAfter, StampsBefore, StampsAfter, RowsBefore, RowsAfter, TableBefore, TableAfter,
		TableShown, SweepMiddle, PutBefore, PutAfter, FileBefore, FileAfter,
	}
}
