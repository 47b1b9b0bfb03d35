package isolate

import (
	"maps"
	"slices"
	"syscall"

	"github.com/caissonrun/caisson"
)

// A setup is what init is told to make: the Spec, with the descriptors of
// whatever comes from the host. Those are numbered by their place in the
// frame; -1 is none.
type setup struct {
	hostname string
	alone    bool // the parent is not root: init takes sources from the host itself
	loopback bool
	// everything and sockets are for a network of the sandbox's own.
	everything bool
	sockets    []Socket
	nested     bool
	oom        bool // programs take back init's protection
	guest      bool // somebody else made the sandbox: programs have init's own rights; not encoded

	uid, gid int
	groups   []uint32 // nil: can't be set

	root         int    // a tree; -1: a tmpfs is made
	rootPath     string // on the host; it counts where alone is set
	changes      int    // a tree with the folders upper and work; -1: no overlay
	changesPath  string // on the host; it counts where alone is set
	rootReadOnly bool
	entries      []Entry
	mounts       []place
	dev          int // a tree; -1: a tmpfs is made, with the host's devices bound in
	sys          bool
	sysTree      int // a tree; -1: init makes it
	masked       []string
	readOnly     []string
	shm          int64

	files    int64
	limits   []Limit
	caps     uint64 // a bit each; those that programs keep
	sysctls  map[string]string
	lastCap  int // the number of the kernel's last capability
	filter   []syscall.SockFilter
	landlock bool
	cgroups  []int // files that programs write "0" to

	contained bool // a runtime has built the view

	// What follows is for the init of a stage, where the runtime runs.
	config      []byte // what the runtime is told
	runtime     int    // a tree of the runtime's file
	runtimeName string
	identity    bool // ids are those of the host
	program     int  // a tree of this program's file
	copyProgram bool // program is a file in memory
	showGroups  bool // the runtime wants to see control groups
}

// A place is a Mount with what the parent found out about it.
type place struct {
	Mount
	source int  // a tree; where alone is set, only what the tree's root must be
	folder bool // the source is one
}

// encode returns the body of a frame.
func (s *setup) encode() []byte {
	var e encoder
	e.text(s.hostname)
	e.text(s.rootPath)
	e.text(s.changesPath)
	for _, b := range []bool{s.alone, s.loopback, s.nested, s.oom, s.rootReadOnly, s.sys, s.landlock, s.groups != nil, s.contained, s.identity, s.copyProgram, s.showGroups, s.everything} {
		e.bool(b)
	}
	for _, n := range []int{s.uid, s.gid, s.root, s.dev, s.sysTree, int(s.shm), int(s.files), s.lastCap, s.runtime, s.program, s.changes, int(s.caps)} {
		e.int(int64(n))
	}
	e.bytes(s.config)
	e.text(s.runtimeName)
	e.int(int64(len(s.groups)))
	for _, g := range s.groups {
		e.int(int64(g))
	}
	e.int(int64(len(s.cgroups)))
	for _, fd := range s.cgroups {
		e.int(int64(fd))
	}
	e.int(int64(len(s.filter)))
	for _, x := range s.filter {
		e.int(int64(x.Code))
		e.int(int64(x.Jt))
		e.int(int64(x.Jf))
		e.int(int64(x.K))
	}
	e.int(int64(len(s.limits)))
	for _, l := range s.limits {
		e.int(int64(l.Resource))
		e.int(int64(l.Soft))
		e.int(int64(l.Hard))
	}
	e.int(int64(len(s.sysctls)))
	for _, name := range slices.Sorted(maps.Keys(s.sysctls)) {
		e.text(name)
		e.text(s.sysctls[name])
	}
	e.texts(s.masked)
	e.texts(s.readOnly)
	e.int(int64(len(s.entries)))
	for i := range s.entries {
		s.entries[i].encode(&e)
	}
	e.int(int64(len(s.mounts)))
	for i := range s.mounts {
		s.mounts[i].encode(&e)
	}
	e.int(int64(len(s.sockets)))
	for _, x := range s.sockets {
		e.bool(x.UDP)
		e.bytes(x.IP)
		e.int(int64(x.Port))
	}
	return e.buf
}

// decodeSetup undoes encode, and replaces the places of descriptors by the
// descriptors.
func decodeSetup(body []byte, fds []int) *setup {
	d := decoder{body}
	s := &setup{hostname: d.text(), rootPath: d.text(), changesPath: d.text()}
	var grouped bool
	for _, b := range []*bool{&s.alone, &s.loopback, &s.nested, &s.oom, &s.rootReadOnly, &s.sys, &s.landlock, &grouped, &s.contained, &s.identity, &s.copyProgram, &s.showGroups, &s.everything} {
		*b = d.bool()
	}
	s.uid, s.gid = int(d.int()), int(d.int())
	s.root, s.dev, s.sysTree = pick(fds, d.int()), pick(fds, d.int()), pick(fds, d.int())
	s.shm, s.files, s.lastCap = d.int(), d.int(), int(d.int())
	s.runtime, s.program = pick(fds, d.int()), pick(fds, d.int())
	s.changes, s.caps = pick(fds, d.int()), uint64(d.int())
	s.config, s.runtimeName = d.bytes(), d.text()
	if n := d.int(); grouped {
		s.groups = make([]uint32, n)
	}
	for i := range s.groups {
		s.groups[i] = uint32(d.int())
	}
	s.cgroups = make([]int, d.int())
	for i := range s.cgroups {
		s.cgroups[i] = pick(fds, d.int())
	}
	s.filter = make([]syscall.SockFilter, d.int())
	for i := range s.filter {
		s.filter[i] = syscall.SockFilter{Code: uint16(d.int()), Jt: uint8(d.int()), Jf: uint8(d.int()), K: uint32(d.int())}
	}
	s.limits = make([]Limit, d.int())
	for i := range s.limits {
		s.limits[i] = Limit{Resource: int(d.int()), Soft: uint64(d.int()), Hard: uint64(d.int())}
	}
	s.sysctls = make(map[string]string)
	for range d.int() {
		name := d.text()
		s.sysctls[name] = d.text()
	}
	s.masked, s.readOnly = d.texts(), d.texts()
	s.entries = make([]Entry, d.int())
	for i := range s.entries {
		s.entries[i].decode(&d)
	}
	s.mounts = make([]place, d.int())
	for i := range s.mounts {
		s.mounts[i].decode(&d, fds)
	}
	s.sockets = make([]Socket, d.int())
	for i := range s.sockets {
		s.sockets[i] = Socket{UDP: d.bool(), IP: d.bytes(), Port: int(d.int())}
	}
	return s
}

// pick returns the n-th descriptor.
func pick(fds []int, n int64) int {
	if n < 0 {
		return -1
	}
	return fds[n]
}

func (x *Entry) encode(e *encoder) {
	e.text(x.Path)
	e.text(x.Link)
	e.bool(x.Dir)
	e.bytes(x.Contents)
	e.int(int64(x.Mode))
	e.bool(x.Owned)
}

func (x *Entry) decode(d *decoder) {
	x.Path, x.Link, x.Dir = d.text(), d.text(), d.bool()
	x.Contents, x.Mode, x.Owned = d.bytes(), uint32(d.int()), d.bool()
}

func (p *place) encode(e *encoder) {
	e.text(p.Type)
	e.text(p.Source)
	e.text(p.Target)
	e.bool(p.ReadOnly)
	e.int(int64(p.Size))
	e.int(int64(p.Mode))
	e.int(int64(p.source))
	e.bool(p.folder)
}

func (p *place) decode(d *decoder, fds []int) {
	p.Type, p.Source, p.Target, p.ReadOnly = d.text(), d.text(), d.text(), d.bool()
	p.Size = caisson.Bytes(d.int())
	p.Mode, p.source, p.folder = uint32(d.int()), pick(fds, d.int()), d.bool()
}

func (p *Program) encode() []byte {
	var e encoder
	e.texts(p.Args)
	e.texts(p.Env)
	e.text(p.Dir)
	e.bool(p.Terminal)
	e.int(int64(p.Cols))
	e.int(int64(p.Rows))
	return e.buf
}

func decodeProgram(body []byte) *Program {
	d := decoder{body}
	return &Program{
		Args: d.texts(), Env: d.texts(), Dir: d.text(), Terminal: d.bool(),
		Cols: uint16(d.int()), Rows: uint16(d.int()),
	}
}
