package network

// TableName is the name of the host's filter of a record.
func TableName(r *Record) string { return r.tableName() }
