package attack

import (
	"fmt"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// The limits that attacks on resources are held by. What a program asks for is
// more, and still little for a host.
const (
	memoryLimit = 64 * caisson.MiB
	pidsLimit   = 60
	diskLimit   = 8 * caisson.MiB
)

func exhaustions() []Attack {
	memory := []string{"limits.memory"}
	const bounded = "it stops at 256 MiB, which a host without a limit lives through"
	return []Attack{
		{
			ID: "D27", Name: "limits/pids", Run: forkBomb, Needs: []string{"limits.pids"},
			Bound: "it stops at 300 processes that sleep",
			Tries: "start processes without end",
		},
		{
			ID: "D27", Name: "limits/threads", Run: threadBomb, Needs: []string{"limits.pids"},
			Bound: "it stops at 400 threads that sleep", Tries: "start threads without end",
		},
		{
			ID: "D28", Name: "limits/memory-in-tmpfs", Run: fillTmpfs, Needs: append(memory, "mounts.tmpfs"), Bound: bounded,
			Tries: "fill a tmpfs that was given",
		},
		{
			ID: "D28", Name: "limits/memory-in-shm", Run: fillShm, Needs: memory, Bound: bounded,
			Tries: "fill /dev/shm, /tmp and /run",
		},
		{
			ID: "D28", Name: "limits/memory-in-memfd", Run: fills("fill-memfd"), Needs: memory, Bound: bounded,
			Tries: "fill a file in memory that has no name",
		},
		{
			ID: "D28", Name: "limits/memory-in-pipes", Run: fills("fill-pipes"), Needs: memory, Bound: bounded,
			Tries: "fill the buffers of pipes that nobody reads",
		},
		{
			ID: "D28", Name: "limits/memory-in-sockets", Run: fills("fill-sockets"), Needs: memory, Bound: bounded,
			Tries: "fill the buffers of sockets that nobody reads",
		},
		{
			ID: "D29", Name: "limits/disk-by-files", Run: fillDisk, Needs: []string{"limits.disk"},
			Bound: "it stops at 32 MiB a folder, below the attack's own",
			Tries: "write more than the disk limit to any folder but the work folder",
		},
		{
			ID: "D29", Name: "limits/core", Run: dumpCore, Bound: "the program that dies is small",
			Tries: "have a core file of its own written",
		},
		{
			ID: "D29", Name: "limits/log", Run: fillLog, Needs: []string{"limits.log"},
			Bound: "it stops at 16 MiB", Tries: "fill the disk by the log",
		},
		{
			ID: "D30", Name: "limits/cpus-by-many", Run: burn, Needs: []string{"limits.cpus"},
			Bound: "it uses two seconds of processor time in all",
			Tries: "use more processor time than the limit, by many processes",
		},
		{
			ID: "D32", Name: "limits/oom-told", Run: outOfMemory, Needs: memory, Bound: bounded,
			Tries: "have its end by the memory limit pass for another, or take a neighbour with it",
		},
	}
}

func forkBomb(t *Trial) {
	spec := t.Spec("forks 300 ; exit 4")
	spec.Limits.PIDs = pidsLimit
	b := t.start(spec)
	b.wait()
	var n int
	out := b.stdout()
	// A program that the system gave nothing more to may not have got so far.
	if _, err := fmt.Sscanf(out, "forks %d", &n); err == nil && n >= pidsLimit {
		t.Errorf("under a limit of %d processes there were %d", pidsLimit, n)
	}
}

func threadBomb(t *Trial) {
	spec := t.Spec("attempt fill-threads ; say all")
	spec.Limits.PIDs = pidsLimit
	b := t.start(spec)
	b.wait()
	if strings.Contains(b.stdout(), "all") {
		t.Errorf("under a limit of %d there were 400 threads", pidsLimit)
	}
}

func fillTmpfs(t *Trial) {
	spec := t.Spec("fill /fast/x 256m ; exit 0")
	spec.Mounts = append(spec.Mounts, engine.Mount{Type: engine.MountTmpfs, Target: "/fast"})
	t.bounded(spec)
}

func fillShm(t *Trial) {
	// What can't be written to is no way to fill memory.
	t.bounded(t.Spec("try fill /dev/shm/x 256m ; try fill /tmp/x 256m ; try fill /run/x 256m ; try fill /dev/x 256m"))
}

// fills returns an attack that makes an attempt which uses 256 MiB.
func fills(attempt string) func(t *Trial) {
	return func(t *Trial) { t.bounded(t.Spec("attempt " + attempt)) }
}

// bounded runs a program that wants 256 MiB under a limit, and checks that it
// was killed for it or refused. What lies on a disk is no memory: the most that
// the sandbox ever used tells.
func (t *Trial) bounded(spec *engine.Spec) {
	spec.Limits.Memory = memoryLimit
	b := t.start(spec)
	exit := b.wait()
	if exit.OOMKills > 0 || exit.Reason == caisson.ReasonOOM {
		return
	}
	out := b.stdout()
	if strings.Contains(out, "fill-") && strings.Contains(out, " ok") {
		t.Errorf("256 MiB were used under a limit of %v: %+v", memoryLimit, exit)
	}
	if exit.Usage.PeakMemory > 2*memoryLimit {
		t.Errorf("%v were used under a limit of %v", exit.Usage.PeakMemory, memoryLimit)
	}
}

// writable are folders that a sandbox may be able to write to, besides the work
// folder.
func writable() []string {
	return []string{"/tmp", "/", "/run", "/var/tmp", "/dev/shm", "/home", "/root"}
}

func fillDisk(t *Trial) {
	dirs := writable()
	if t.Features.PrivateDisk {
		dirs = append(dirs, "/work")
	}
	var args []string
	for _, dir := range dirs {
		args = append(args, "say", "to", dir, ";", "try", "fill", strings.TrimSuffix(dir, "/")+"/x", "32m", ";")
	}
	spec := t.Spec(args...)
	spec.Limits.Disk = diskLimit
	// The work folder is the executor's to bound, where it is not the sandbox's
	// own: a whole task tries that.
	if t.Features.PrivateDisk {
		spec.Work = ""
	} else {
		spec.WorkLimited = true
	}
	b := t.startUnless(spec, caisson.ErrInvalid)
	if b == nil {
		return
	}
	b.wait()
	for _, try := range strings.Split(b.stdout(), "to ")[1:] {
		var dir string
		var n int64
		if _, err := fmt.Sscanf(try, "%s\nfill %d", &dir, &n); err == nil && n > int64(diskLimit) {
			t.Errorf("%d bytes could be written to %s, the limit is %v", n, dir, diskLimit)
		}
	}
}

func dumpCore(t *Trial) {
	if f := t.launch("report").facts(); f.Limits["core"] != 0 {
		t.Errorf("a core file may have %d bytes", f.Limits["core"])
	}
}

func fillLog(t *Trial) {
	const limit = caisson.MiB
	spec := t.Spec("print stdout 16m 1")
	spec.Limits.Log = limit
	b := t.start(spec)
	b.wait()
	if n := len(b.stdout()); n > int(limit) {
		t.Errorf("the log has %d bytes, the limit is %v", n, limit)
	}
}

func burn(t *Trial) {
	const cpus, each, many = 200, 250 * time.Millisecond, 4 // a fifth of a core
	spec := t.Spec(strings.Repeat("spawn spin "+each.String()+" ; ", many) + "reap")
	spec.Limits.CPUs = cpus
	b := t.start(spec)
	b.success()
	exit := b.wait()
	// A group may save up some time at its beginning.
	if least := many * each * 1000 / cpus / 2; exit.Usage.Wall.Std() < least {
		t.Errorf("%v of processor time at %v cores took %v, want at least %v", many*each, caisson.CPUs(cpus), exit.Usage.Wall, least)
	}
}

func outOfMemory(t *Trial) {
	neighbour := t.launch("trap 15 ; say ready ; await 15 ; exit 0")
	neighbour.says("ready")
	spec := t.Spec("alloc 256m ; hold")
	spec.Limits.Memory = memoryLimit
	exit := t.start(spec).wait()
	if exit.Reason != caisson.ReasonOOM || exit.OOMKills < 1 {
		t.Errorf("the end is told as %+v, want reason oom with its kills", exit)
	}
	const sigTerm = 15
	t.OK(neighbour.process.Signal(t.ctx, sigTerm), "Signal")
	if exit := neighbour.wait(); exit.Reason != caisson.ReasonExited {
		t.Errorf("a neighbour ended with %+v", exit)
	}
}
