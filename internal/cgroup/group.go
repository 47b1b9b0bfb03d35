package cgroup

// A Group is one control group: on version 1 one folder in each hierarchy
// that is used, on version 2 a single one.
type Group struct {
	name string
}

// Probe finds out what control groups can do here, by making a group, setting
// each limit and reading it back. Nothing is left.
func Probe() Support { panic("todo") }

// Create makes a group below the parent that belongs to this process, sets
// every limit and reads it back. A limit that can't be set fails the call, by
// name, and nothing is left. name is one path element.
//
// Errors: ErrExists if there is such a group; ErrUnsupported for a limit or a
// host without groups.
func Create(name string, limits Limits) (*Group, error) { panic("todo") }

// Open finds the group that Create made, in this process or an earlier one,
// also where Create or Remove were cut short. Errors: ErrNotFound.
func Open(name string) (*Group, error) { panic("todo") }

// List returns the names of all groups below this process's parent that begin
// with prefix.
func List(prefix string) ([]string, error) { panic("todo") }

// Name returns the name given to Create.
func (g *Group) Name() string { return g.name }

// Add moves a process with all its threads into the group. What it starts
// from then on is born in the group.
func (g *Group) Add(pid int) error { panic("todo") }

// FD opens the group's folder for CLONE_INTO_CGROUP. It is false where a
// process must be added with Add instead: on version 1 and hybrid hosts.
func (g *Group) FD() (fd int, ok bool) { panic("todo") }

// Kill kills every process in the group and returns when none is left, or an
// error when some can't be killed within a few seconds.
func (g *Group) Kill() error { panic("todo") }

// Freeze halts every process in the group, or lets them continue, and returns
// when that is done.
func (g *Group) Freeze(on bool) error { panic("todo") }

// Procs returns the ids of the processes in the group, as this process sees
// them.
func (g *Group) Procs() ([]int, error) { panic("todo") }

// Stats returns what the group has used.
func (g *Group) Stats() (Stats, error) { panic("todo") }

// Remove removes the group. It fails while processes are in it, and may be
// called again: a group that is gone is nil.
func (g *Group) Remove() error { panic("todo") }
