//go:build unix

package selftest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine/attack"
	"github.com/caissonrun/caisson/executor"
)

// tasks returns the attacks by whole tasks on one engine: what is staged in and
// out around a sandbox.
func tasks(x *executor.Executor, r *target) []attack.Attack {
	with := func(run func(t *attack.Trial, x *executor.Executor, r *target)) func(t *attack.Trial) {
		return func(t *attack.Trial) { run(t, x, r) }
	}
	return append(secrets(with), []attack.Attack{
		{
			ID: "A14", Name: "task/labels", Run: with(hostileLabels), Bound: "the program that labels name makes an empty file of the attack's own",
			Tries: "labels of an image that daemons, runtimes or Caisson itself could take for control input",
			CVE:   []string{"CVE-2026-53488"},
		},
		{
			ID: "C23", Name: "task/output-links", Run: with(outputLinks), Bound: ownFolder,
			Tries: "have the host's files staged out by links, in folders, by .. and through /proc",
			CVE:   []string{"CVE-2018-15664", "CVE-2024-28185", "CVE-2024-28189"},
		},
		{
			ID: "C24", Name: "task/output-special", Run: with(outputSpecial), Bound: ownFolder,
			Tries: "hold up staging out by FIFOs, and leave set-id programs as outputs",
		},
		{
			ID: "B22", Name: "task/input-through-link", Run: with(inputThroughLink), Bound: ownFolder,
			Tries: "have what Caisson writes into the work folder go through links that an earlier step made",
			CVE:   []string{"CVE-2025-8959", "CVE-2024-28185"},
		},
		{
			ID: "D29", Name: "task/disk-by-files", Run: with(diskByFiles), Needs: []string{"limits.disk"},
			Bound: "it stops at 32 MiB a folder, below the task's own",
			Tries: "write more than the disk limit to the work folder and /tmp",
		},
		{
			ID: "D29", Name: "task/disk-by-inodes", Run: with(diskByInodes), Needs: []string{"limits.disk"},
			Bound: "it stops at 30000 files, below the task's own folder",
			Tries: "use up the host's inodes by very small files",
		},
	}...)
}

// leaving is how long the removing of a task may take.
const leaving = time.Minute

// taskOf returns a task of an engine whose program is the one that attacks run.
func (r *target) taskOf(args ...string) *caisson.Task {
	task := &caisson.Task{
		Engine: r.engine.Name(), Timeout: caisson.Duration(life), Grace: caisson.Duration(1e9),
		Inputs: []caisson.Input{{From: "file:" + r.inside, To: "bin/inside", Mode: "0755", Writable: true}},
	}
	task.Program = r.programOf(args...)
	return task
}

// programOf returns one step's program. Its paths are relative to the work
// folder, which is elsewhere where programs see the host's files.
func (r *target) programOf(args ...string) caisson.Program {
	p := caisson.Program{Cmd: append([]string{"./bin/inside"}, args...)}
	if r.base != "" {
		p.Image = archiveRef(r.base)
	}
	return p
}

// result runs a task to its end.
func (r *target) result(t *attack.Trial, x *executor.Executor, task *caisson.Task) *caisson.Result {
	if r.base != "" {
		if _, err := os.Stat(archivePath(r.base)); errors.Is(err, os.ErrNotExist) {
			t.OK(r.archive(), "making the image's archive")
		}
	}
	id, err := x.Submit(t.Context(), task, &executor.Submission{BaseDir: t.Dir, Trusted: true})
	t.OK(err, "Submit")
	// Whatever becomes of it, nothing of the task stays.
	t.After(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), leaving)
		defer cancel()
		if err := x.Remove(ctx, id, true); err != nil && !errors.Is(err, caisson.ErrNotFound) {
			t.Errorf("the task can't be removed: %v", err)
		}
	})
	t.OK(x.Attend(t.Context(), id, false), "Attend")
	result, err := x.Wait(t.Context(), id)
	t.OK(err, "Wait")
	return result
}

// ran ends the trial if the program itself did not do what it was to do.
func ran(t *attack.Trial, result *caisson.Result) {
	if result.Exit.Code != 0 || result.Exit.Reason != caisson.ReasonExited {
		why := fmt.Errorf("it ended with %s, code %d %s", result.Exit.Reason, result.Exit.Code, result.Exit.Message)
		if failure := result.Error; failure != nil {
			if failure.Kind == caisson.ErrDenied || failure.Kind == caisson.ErrUnsupported {
				t.Inapplicable("%s", failure.Message)
			}
			why = errors.New(failure.Message)
		}
		t.OK(why, "the task's program")
	}
}

func hostileLabels(t *attack.Trial, x *executor.Executor, r *target) {
	if r.base == "" {
		t.Inapplicable("the engine runs no images")
	}
	marks := t.Folder("marks")
	program := filepath.Join(marks, "program")
	t.OK(write(program, fmt.Appendf(nil, "#!/bin/sh\ntouch %s.made\n", program)), "WriteFile")
	files, err := r.files()
	t.OK(err, "making an image")
	path := filepath.Join(t.Dir, "image.tar")
	t.OK(writeLayers(path, labels(program), layerOf(files)), "making an image")
	out := t.Folder("results")
	task := r.taskOf("write", "fine", "fine")
	task.Image = "docker-archive:" + path
	task.Outputs = []caisson.Output{{Path: "fine", To: "file:" + out + "/"}}
	result := r.result(t, x, task)
	ran(t, result)
	if data, err := os.ReadFile(filepath.Join(out, "fine")); string(data) != "fine" {
		t.Errorf("the task's output is %q, %v", data, err)
	}
	if entries, _ := os.ReadDir(marks); len(entries) != 1 {
		t.Errorf("a label had a program of the host run, or a file made: %v", entries)
	}
}

func outputLinks(t *attack.Trial, x *executor.Executor, r *target) {
	flag, text := t.Flag()
	out := t.Folder("results")
	args := strings.Fields("mkdir out/sub ; write out/fine fine")
	for name, link := range map[string]string{
		"abs": flag, "dots": strings.Repeat("../", 30) + flag[1:], "proc": "/proc/self/root" + flag, "proc1": "/proc/1/root" + flag,
		"dir": filepath.Dir(flag), "sub/abs": flag, "cwd": "/proc/self/cwd/../../../../../../../.." + flag,
	} {
		args = append(args, ";", "symlink", link, "out/"+name)
	}
	args = append(args, ";", "try", "hardlink", flag, "out/hard", ";", "symlink", filepath.Dir(flag), "moved")
	task := r.taskOf(args...)
	for _, path := range []string{"out/*", "out/**", "out", "moved/*", "out/dir/*", "out/dir/flag", "out/abs"} {
		task.Outputs = append(task.Outputs, caisson.Output{Path: path, To: "file:" + out + "/", Optional: true, When: caisson.WhenAlways})
	}
	result := r.result(t, x, task)
	ran(t, result)
	holds(t, out, text)
}

// holds checks that no file below dir has the text of the host's.
func holds(t *attack.Trial, dir, text string) {
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if strings.Contains(string(data), text) {
				t.Errorf("%s is the host's file", d.Name())
			}
			return err
		}
		return nil
	})
	t.OK(err, "looking at the results")
}

func outputSpecial(t *attack.Trial, x *executor.Executor, r *target) {
	out := t.Folder("results")
	task := r.taskOf(strings.Fields("mkdir out ; try fifo out/fifo ; write out/fine fine ; symlink loop out/loop ; " +
		"write out/setid x ; chmod 6755 out/setid")...)
	task.Outputs = []caisson.Output{{Path: "out/*", To: "file:" + out + "/", Optional: true, When: caisson.WhenAlways}}
	ran(t, r.result(t, x, task))
	err := filepath.WalkDir(out, func(_ string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 || info.Mode()&(os.ModeNamedPipe|os.ModeDevice|os.ModeSocket) != 0 {
			t.Errorf("the results have %s of mode %v", d.Name(), info.Mode())
		}
		return nil
	})
	t.OK(err, "looking at the results")
}

func inputThroughLink(t *attack.Trial, x *executor.Executor, r *target) {
	victim := t.Folder("victim")
	// The first step makes links where files of the second are then put.
	first := caisson.Step{Name: "first", Program: r.programOf(
		"symlink", victim, "linked", ";", "symlink", victim+"/file", "file", ";", "symlink", victim, "dir")}
	task := r.taskOf("exit", "0")
	task.Pre = []caisson.Step{first}
	task.Files = map[string]string{"linked/made": "x", "file": "x", "dir/deep/made": "x"}
	// It may be refused, or fail: what counts is the folder of the host.
	_ = r.result(t, x, task)
	t.Empty(victim)
}

// diskLimit is what tasks may write that try to write more.
const diskLimit = 16 * caisson.MiB

func diskByFiles(t *attack.Trial, x *executor.Executor, r *target) {
	task := r.taskOf(strings.Fields("try fill x 64m ; try fill /tmp/x 64m ; exit 0")...)
	task.Limits.Disk = diskLimit
	out := t.Folder("results")
	task.Outputs = []caisson.Output{{Path: "x", To: "file:" + out + "/", When: caisson.WhenAlways, Optional: true}}
	_ = r.result(t, x, task)
	if info, err := os.Stat(filepath.Join(out, "x")); err == nil && info.Size() > int64(diskLimit) {
		t.Errorf("%d bytes could be written, the limit is %v", info.Size(), diskLimit)
	}
}

func diskByInodes(t *attack.Trial, x *executor.Executor, r *target) {
	task := r.taskOf(strings.Fields("mkdir many ; many many 30000 ; exit 77")...)
	task.Limits.Disk = diskLimit
	if result := r.result(t, x, task); result.Exit.Code == 77 {
		t.Errorf("30000 files could be made under a disk limit of %v", diskLimit)
	}
}
