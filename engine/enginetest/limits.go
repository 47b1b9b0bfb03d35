package enginetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func limitCases() []Case {
	return []Case{
		{
			Name: "limits/memory", Rules: []int{38, 128}, Attacks: []int{32}, Needs: []string{"limits.memory"},
			Rule: "a program over the memory limit ends as oom with the limit in the message, and its neighbours live on", wants: []facility{system},
			body: limitMemory,
		},
		{
			Name: "limits/memory-of-child", Rules: []int{38}, Attacks: []int{32}, Needs: []string{"limits.memory"},
			Rule: "where the memory limit kills a child only, the program runs on and the kill is counted", wants: []facility{system, sharedKernel},
			body: limitMemoryOfChild,
		},
		{
			Name: "limits/memory-in-tmpfs", Rules: []int{128}, Attacks: []int{28}, Needs: []string{"limits.memory", "mounts.tmpfs"},
			Rule: "what is written to a tmpfs counts as memory",
			body: attacked("limits/memory-in-tmpfs"),
		},
		{
			Name: "limits/pids", Rules: []int{39, 128}, Attacks: []int{27}, Needs: []string{"limits.pids"},
			Rule: "no more processes than the limit run at once, and the program is told EAGAIN",
			body: limitPIDs,
		},
		{
			Name: "limits/cpus", Rules: []int{128}, Attacks: []int{30}, Needs: []string{"limits.cpus"}, wants: []facility{system},
			Rule: "processes together get no more processor time than the limit",
			body: limitCPUs,
		},
		{
			Name: "limits/files", Rules: []int{128}, Needs: []string{"limits.files"},
			Rule: "a process can't open more files than the limit",
			body: limitFiles,
		},
		{
			Name: "limits/disk", Rules: []int{85, 128}, Attacks: []int{29}, Needs: []string{"limits.disk"},
			Rule: "no more can be written than the disk limit, wherever it is written to",
			body: limitDisk,
		},
		{
			Name: "limits/private-disk", Rules: []int{85, 128}, Needs: []string{"private_disk", "limits.disk", "files"},
			Rule: "where the work folder is the sandbox's own under a disk limit, it is bounded, and files are exchanged with it",
			body: limitPrivateDisk,
		},
		{
			Name: "limits/together", Rules: []int{128},
			Rule: "all limits that are declared can be set at once, and a modest program does not feel them",
			body: limitsTogether,
		},
		{
			Name: "limits/stats", Rules: []int{42, 128}, Needs: []string{"stats"},
			Rule: "Stats tells what is used while the program runs and at its end; after Destroy it is ErrAborted",
			body: stats,
		},
	}
}

func limitMemory(t *T) {
	neighbour := t.holding()
	spec := t.spec("alloc 512m ; hold")
	spec.Limits.Memory = 64 * caisson.MiB
	exit := t.start(spec).wait()
	if exit.Reason != caisson.ReasonOOM || exit.OOMKills < 1 || exit.Status() != 137 {
		t.Errorf("Wait = %+v, want reason oom with its kills, status 137", exit)
	}
	if !strings.Contains(exit.Message, "64") {
		t.Errorf("the message %q does not tell the limit", exit.Message)
	}
	t.ok(neighbour.process.Signal(t.ctx, sigTerm), "Signal")
	neighbour.success()
	spec = t.spec("alloc 16m ; exit 3")
	spec.Limits.Memory = 64 * caisson.MiB
	t.start(spec).expect(caisson.ReasonExited, 3, 0)
}

func limitMemoryOfChild(t *T) {
	spec := t.spec("spawn alloc 512m , hold ; try reap ; exit 0")
	spec.Limits.Memory = 64 * caisson.MiB
	if exit := t.start(spec).success(); exit.OOMKills < 1 {
		t.Errorf("Wait = %+v, want the child's kill counted", exit)
	}
}

func limitPIDs(t *T) {
	const most = 50 // with the threads of every process
	spec := t.spec("forks", "1000", ";", "say", "and goes on", ";", "exit", "4")
	spec.Limits.PIDs = most
	b := t.start(spec)
	b.expect(caisson.ReasonExited, 4, 0)
	var n int
	out := b.stdout()
	if _, err := fmt.Sscanf(out, "forks %d EAGAIN\nand goes on\n", &n); err != nil || n < 1 || n >= most {
		t.Errorf("under a limit of %d: %q, want fewer children and EAGAIN", most, out)
	}
}

func limitCPUs(t *T) {
	const cpus, spin = 200, 300 * time.Millisecond // a fifth of a core
	spec := t.spec("spawn", "spin", spin.String(), ";", "spin", spin.String(), ";", "reap")
	spec.Limits.CPUs = cpus
	exit := t.start(spec).success()
	// Without the limit this takes 0.6 s on one core; with it, 3 s. A group may
	// save up some time at its beginning.
	if least := 2 * spin * 1000 / cpus / 2; exit.Usage.Wall.Std() < least {
		t.Errorf("%v of processor time at %v cores took %v, want at least %v", 2*spin, caisson.CPUs(cpus), exit.Usage.Wall, least)
	}
}

func limitFiles(t *T) {
	const most = 64
	spec := t.spec("write /work/f x ; open /work/f 1000")
	spec.Limits.Files = most
	b := t.start(spec)
	b.success()
	var n int
	if _, err := fmt.Sscanf(b.stdout(), "open %d EMFILE", &n); err != nil || n < 1 || n >= most {
		t.Errorf("under a limit of %d files: %q", most, b.stdout())
	}
}

func limitDisk(t *T) {
	const limit = 8 * caisson.MiB
	shared := []string{"/work/x", "/tmp/x"} // that the caller may bound
	others := []string{"/x", "/run/x", "/var/tmp/x", "/dev/shm/x", "/home/x"}

	if t.h.RootFS != "" {
		// What is written to the root is on the caller's limited storage too.
		others = []string{"/dev/shm/x"}
	}
	// Where the caller bounds the work folder, all else is the engine's.
	spec := t.spec(fills(others)...)
	spec.Limits.Disk, spec.WorkLimited = limit, true
	t.start(spec).bounded(len(others), limit)

	// Otherwise the engine bounds everything, or refuses.
	spec = t.spec(fills(append(shared, others...))...)
	spec.Limits.Disk = limit
	if b := t.startUnless(spec, caisson.ErrUnsupported, caisson.ErrInvalid); b != nil {
		b.bounded(len(shared)+len(others), limit)
	}
}

func limitPrivateDisk(t *T) {
	const limit = 8 * caisson.MiB
	spec := t.spec("read /work/in ; say ; write /work/out made ; try fill /work/x 32m")
	spec.Work, spec.Limits.Disk = "", limit
	sb := t.create(spec)
	filer := sb.(engine.Filer)
	t.ok(filer.Put(t.ctx, "work", pack(entry{name: "in", text: "put"})), "Put")
	b := &box{t: t, spec: spec, Sandbox: sb}
	var err error
	b.process, err = sb.Start(t.ctx)
	t.ok(err, "Start")
	b.success()
	var n int64
	out := b.stdout()
	if _, err := fmt.Sscanf(out, "put\nfill %d ENOSPC", &n); err != nil || n > int64(limit) {
		t.Errorf("with a work folder of its own and a limit of %d: %q", limit, out)
	}
	if found := t.archive(sb, "work/out"); found["out"] != "made" {
		t.Errorf("the work folder gives back %v", found)
	}
}

// fills are commands that write 32 MiB to each path, where that is possible.
func fills(paths []string) []string {
	var args []string
	for _, path := range paths {
		args = append(args, "say", "to", path, ";", "try", "fill", path, "32m", ";")
	}
	return args
}

// bounded checks that the program could not write more than the limit to any
// one of the places that it tried. A block more may be the file system's.
func (b *box) bounded(places int, limit caisson.Bytes) {
	exit := b.wait()
	tried := strings.Split(b.stdout(), "to ")[1:]
	if len(tried) != places {
		b.t.Errorf("the program tried %d places of %d: %q, %+v", len(tried), places, b.stdout(), exit)
	}
	for _, try := range tried {
		var path string
		var n int64
		if _, err := fmt.Sscanf(try, "%s\nfill %d", &path, &n); err == nil && n > int64(limit) {
			b.t.Errorf("%d bytes could be written to %s, the limit is %d", n, path, limit)
		}
	}
}

func limitsTogether(t *T) {
	spec := t.spec("write /work/x x ; say done")
	f := t.features.Limits
	set(f.CPUs, &spec.Limits.CPUs, 1000)
	set(f.Memory, &spec.Limits.Memory, 128*caisson.MiB)
	set(f.PIDs, &spec.Limits.PIDs, 100)
	set(f.Disk, &spec.Limits.Disk, 64*caisson.MiB)
	set(f.Log, &spec.Limits.Log, caisson.MiB)
	set(f.Files, &spec.Limits.Files, 256)
	spec.WorkLimited = f.Disk
	spec.Timeout = caisson.Duration(time.Minute)
	b := t.start(spec)
	b.success()
	if got := b.stdout(); got != "done\n" {
		t.Errorf("stdout = %q", got)
	}
}

func set[N any](declared bool, limit *N, value N) {
	if declared {
		*limit = value
	}
}

func stats(t *T) {
	b := t.launch("trap 15 ; alloc 32m ; spin 100ms ; say ready ; await 15")
	b.says("ready")
	reader := b.Sandbox.(engine.StatsReader)
	s, err := reader.Stats(t.ctx)
	t.ok(err, "Stats")
	for what, plausible := range map[string]bool{
		"Time":   time.Since(s.Time) < time.Minute,
		"CPU":    s.CPU == -1 || s.CPU.Std() >= 90*time.Millisecond,
		"Memory": s.Memory == -1 || s.Memory >= 32*caisson.MiB, "PeakMemory": s.PeakMemory == -1 || s.PeakMemory >= s.Memory*9/10,
		"PIDs": s.PIDs == -1 || s.PIDs >= 1 && s.PIDs < 200, "OOMKills": s.OOMKills <= 0,
	} {
		if !plausible {
			t.Errorf("Stats = %+v: %s is not plausible", s, what)
		}
	}
	if t.features.Limits.Memory && s.Memory == -1 {
		t.Errorf("Stats = %+v: the memory is limited and not measured", s)
	}
	t.ok(b.process.Signal(t.ctx, sigTerm), "Signal")
	b.success()
	last, err := reader.Stats(t.ctx)
	t.ok(err, "Stats after the end")
	if last.CPU < s.CPU {
		t.Errorf("Stats = %+v after the end, before it was %+v", last, s)
	}
	t.destroy(b.Sandbox)
	_, err = reader.Stats(t.ctx)
	t.kind(err, "Stats after Destroy", caisson.ErrAborted)
}
