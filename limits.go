package caisson

// Limits bounds what a sandbox may use. Every limit that is set is enforced,
// or the task is refused. Zero means that no limit is set.
type Limits struct {
	CPUs   CPUs  `json:"cpus,omitempty"`   // processor time per time
	Memory Bytes `json:"memory,omitempty"` // of all processes, with page cache and tmpfs; swap is not added
	PIDs   int64 `json:"pids,omitempty"`   // processes and threads at once
	Disk   Bytes `json:"disk,omitempty"`   // what may be written: work folder, /tmp and root together
	Log    Bytes `json:"log,omitempty"`    // of each step's log; what is over it is dropped and a marker says so
	Files  int64 `json:"files,omitempty"`  // open files of one process
}
