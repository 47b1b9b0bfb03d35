package crash

// The points of the executor, in the order in which a task meets them.
const (
	StateBefore     Name = "state-before" // version.json of a new state folder
	StateAfter      Name = "state-after"
	SecretsBefore   Name = "secrets-before"
	SecretsAfter    Name = "secrets-after"
	FolderBefore    Name = "folder-before" // a task's folder
	FolderAfter     Name = "folder-after"
	AcceptedBefore  Name = "accepted-before" // first line of the journal
	AcceptedAfter   Name = "accepted-after"
	TaskBefore      Name = "task-before" // task.json: the task exists
	TaskAfter       Name = "task-after"
	AttemptBefore   Name = "attempt-before"
	AttemptAfter    Name = "attempt-after"
	WorkBefore      Name = "work-before" // folders of an attempt
	WorkAfter       Name = "work-after"
	PlacesBefore    Name = "places-before" // mounts.json, before each thing that it names
	PlacesAfter     Name = "places-after"
	StagedBefore    Name = "staged-before"
	StagedAfter     Name = "staged-after"
	RootBefore      Name = "root-before" // an image's unpacked files, with their lease; only with images
	RootAfter       Name = "root-after"
	NetworkBefore   Name = "network-before" // what steps share, before the first sandbox; only with sidecars
	NetworkAfter    Name = "network-after"
	StepBefore      Name = "step-before" // a step's folder, before Create
	StepAfter       Name = "step-after"
	CreatedBefore   Name = "created-before" // after Create, before Start
	CreatedAfter    Name = "created-after"
	StartedBefore   Name = "started-before" // after Start
	StartedAfter    Name = "started-after"
	ChildBefore     Name = "child-before" // of a composite task, before the child's folder
	ChildAfter      Name = "child-after"
	MessageBefore   Name = "message-before" // of a composite task, before what it prints once
	MessageAfter    Name = "message-after"
	PrintBefore     Name = "print-before" // in its log
	PrintAfter      Name = "print-after"
	ExitedBefore    Name = "exited-before" // after Wait
	ExitedAfter     Name = "exited-after"
	RetrievedBefore Name = "retrieved-before" // after each exit: files are back, sandbox about to go
	RetrievedAfter  Name = "retrieved-after"
	StagedOutBefore Name = "staged-out-before"
	StagedOutAfter  Name = "staged-out-after"
	CleanBefore     Name = "clean-before" // what an attempt leaves is removed
	CleanAfter      Name = "clean-after"
	EndBefore       Name = "attempt-end-before"
	EndAfter        Name = "attempt-end-after"
	RetryBefore     Name = "retry-before"
	RetryAfter      Name = "retry-after"
	KeepBefore      Name = "keep-before"
	KeepAfter       Name = "keep-after"
	ForgetBefore    Name = "forget-before" // secrets are removed
	ForgetAfter     Name = "forget-after"
	ResultBefore    Name = "result-before" // result.json
	ResultAfter     Name = "result-after"
	EndedBefore     Name = "ended-before" // last line of the journal
	EndedAfter      Name = "ended-after"
	WakeBefore      Name = "wake-before" // of a child: its parent's attendant is started
	WakeAfter       Name = "wake-after"
	ControlBefore   Name = "control-before" // what stop writes
	ControlAfter    Name = "control-after"
	RemoveBefore    Name = "remove-before" // a task's folder goes
	RemoveMiddle    Name = "remove-middle"
	RemoveAfter     Name = "remove-after"
)

// The points of other packages. They are passed more than once in the life of a
// task: tests run through NAME:1, NAME:2 and so on.
const (
	AtomicBefore Name = "atomic-before" // a file of package atomicfile, written and not yet renamed
	AtomicAfter  Name = "atomic-after"
	StoreBefore  Name = "store-before" // an output of package stage/file
	StoreAfter   Name = "store-after"
)

// Repeated returns the points that are passed more than once.
func Repeated() []Name { return []Name{AtomicBefore, AtomicAfter, StoreBefore, StoreAfter} }

// Points returns the points that a task passes once, or once in each step.
func Points() []Name {
	return []Name{
		StateBefore, StateAfter, SecretsBefore, SecretsAfter, FolderBefore, FolderAfter,
		AcceptedBefore, AcceptedAfter, TaskBefore, TaskAfter, AttemptBefore, AttemptAfter,
		WorkBefore, WorkAfter, PlacesBefore, PlacesAfter, StagedBefore, StagedAfter,
		RootBefore, RootAfter, NetworkBefore, NetworkAfter, StepBefore, StepAfter, CreatedBefore, CreatedAfter, StartedBefore, StartedAfter,
		ExitedBefore, ExitedAfter, RetrievedBefore, RetrievedAfter, StagedOutBefore, StagedOutAfter,
		CleanBefore, CleanAfter, EndBefore, EndAfter, RetryBefore, RetryAfter, KeepBefore, KeepAfter,
		ForgetBefore, ForgetAfter, ResultBefore, ResultAfter, EndedBefore, EndedAfter,
		ControlBefore, ControlAfter, RemoveBefore, RemoveMiddle, RemoveAfter,
	}
}

// Composite returns the points of composite tasks and their children, beside
// those that every task passes.
func Composite() []Name {
	return []Name{
		ChildBefore, ChildAfter, MessageBefore, MessageAfter, PrintBefore, PrintAfter, WakeBefore, WakeAfter,
	}
}

// The points of package image. They are passed more than once as well.
const (
	BlobBefore    Name = "image-blob-before" // a blob gets its name
	BlobAfter     Name = "image-blob-after"
	GrantBefore   Name = "image-grant-before" // it is noted who may have it
	GrantAfter    Name = "image-grant-after"
	ClaimBefore   Name = "image-claim-before" // what a pull is to use
	ClaimAfter    Name = "image-claim-after"
	RecordBefore  Name = "image-record-before" // the image's name
	RecordAfter   Name = "image-record-after"
	LayerBefore   Name = "image-layer-before" // each layer that is unpacked
	TreeBefore    Name = "image-tree-before"  // the unpacked folder gets its name
	TreeAfter     Name = "image-tree-after"
	DiskBefore    Name = "image-disk-before" // the disk of an unpacked folder gets its name
	DiskAfter     Name = "image-disk-after"
	LeaseBefore   Name = "image-lease-before"
	LeaseAfter    Name = "image-lease-after"
	CopyBefore    Name = "image-copy-before" // a sandbox's own copy gets its name
	CopyAfter     Name = "image-copy-after"
	CollectBefore Name = "image-collect-before" // each thing that is collected
	CollectAfter  Name = "image-collect-after"
	EmptyBefore   Name = "image-empty-before" // what was collected is removed
)

// Image returns the points of package image.
func Image() []Name {
	return []Name{
		BlobBefore, BlobAfter, GrantBefore, GrantAfter, ClaimBefore, ClaimAfter, RecordBefore, RecordAfter,
		LayerBefore, TreeBefore, TreeAfter, DiskBefore, DiskAfter, LeaseBefore, LeaseAfter, CopyBefore, CopyAfter,
		CollectBefore, CollectAfter, EmptyBefore,
	}
}
