// Package wire is what a keeper and its clients say to each other, and the
// connection on which they do. It is apart from both so that the keeper's
// small program links nothing of the client.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// Version is the version of the Spec, of the requests and of keeper.json. A
// keeper refuses a Spec of another version. A client refuses a keeper of a
// newer one.
//
// It grows with every field that a sandbox is not as safe without: version 2
// has root file systems that others share.
const Version = 2

// Names of files in Spec.Dir.
const (
	RecordFile = "keeper.json" // there while a keeper lives, unless it was killed
	ExitFile   = "exit.json"   // there once the program has ended
	// SpareFile is room that the keeper reserves, so that the exit can be
	// written to a disk that is full.
	SpareFile = "exit.json.spare"
)

// A Spec says what a keeper keeps. It reaches the keeper through a pipe and
// is never on disk, because it holds secrets.
type Spec struct {
	Version int    `json:"version"` // Launch sets it
	ID      string `json:"id"`      // of the sandbox, for messages
	// Dir is an existing folder; keeper.json and exit.json go there.
	Dir string `json:"dir"`
	// Socket is the absolute path of the unix socket, of any length. Its
	// folder exists and is open to its owner only.
	Socket string `json:"socket"`
	// Log is the absolute path of the log, in the format of package tasklog.
	Log string `json:"log"`
	// LogLimit is how many bytes of output the log keeps. Zero: all.
	LogLimit caisson.Bytes `json:"log_limit,omitempty"`
	// Redact lists secret values; see package redact. Empty ones are skipped.
	Redact [][]byte `json:"redact,omitempty"`

	Box     *isolate.Spec   `json:"box"`
	Program isolate.Program `json:"program"`
	// Input is what the program reads from its standard input. Empty: nothing.
	Input []byte `json:"input,omitempty"`
	// Foreign says that the sandbox is of another kind; of Box only the limits
	// are read then, for messages.
	Foreign *Foreign `json:"foreign,omitempty"`
	// Once are files that are gone after their first read.
	Once []Once `json:"once,omitempty"`

	// Timeout is how long the program may run, paused or not. Zero: for ever.
	Timeout caisson.Duration `json:"timeout,omitempty"`
	// StopSignal is sent first when the time is up or a stop is asked for.
	// Zero: SIGTERM.
	StopSignal int `json:"stop_signal,omitempty"`
	// Grace is the time between StopSignal and the kill when the time is up.
	Grace caisson.Duration `json:"grace,omitempty"`
	// Linger is how long processes that the program leaves behind may hold its
	// output. Zero: they are killed at once.
	Linger caisson.Duration `json:"linger,omitempty"`

	// Keep is how long after the program's end is durable others can still be started in
	// the sandbox. What the program has left behind is halted then instead of
	// killed; when the time is over everything is killed, and the rest is as
	// without Keep. Zero: nothing is started after the end.
	Keep caisson.Duration `json:"keep,omitempty"`

	// OnExit is started once after the exit is durable, if no connection that
	// called Own is open then, or as soon as the last such one closes without
	// Destroy. If it ends, or can't be started, and the sandbox is still there
	// with nobody owning it, it is started again, five times in all. Then the
	// keeper destroys the sandbox and ends.
	OnExit    []string `json:"on_exit,omitempty"`
	OnExitEnv []string `json:"on_exit_env,omitempty"`
	// OnExitDelay is the time before OnExit's second start; it doubles from
	// start to start. Zero: one second.
	OnExitDelay caisson.Duration `json:"on_exit_delay,omitempty"`
}

// A Foreign is a sandbox that only the main binary's keeper can make.
type Foreign struct {
	Kind string          `json:"kind"` // of the server.Opener
	Data json.RawMessage `json:"data"`
	// Adopt says that it is there already, left behind by a keeper that was
	// killed, perhaps with its program running.
	Adopt bool `json:"adopt,omitempty"`
}

// A Once is a file in the sandbox that can be read once. It lies in a folder
// that the sandbox has of its own, in memory, and that exists at its start.
type Once struct {
	Path  string `json:"path"` // absolute, inside
	Value []byte `json:"value"`
	UID   int    `json:"uid"` // who may read it, in ids of the host
	GID   int    `json:"gid"`
}

// Check returns an error of kind ErrInvalid unless s can be kept.
func (s *Spec) Check() error {
	switch {
	case s.Version != Version:
		return invalid(fmt.Errorf("spec is of version %d, this keeper reads %d", s.Version, Version))
	case s.Box == nil:
		return invalid(errors.New("spec has no box"))
	case s.Keep > 0 && s.Box.None:
		return &caisson.Error{
			Op: caisson.OpCreate, Item: "keep", Kind: caisson.ErrUnsupported,
			Err: errors.New("without isolation there is no sandbox that could be kept"),
		}
	case len(s.Program.Args) == 0:
		return invalid(errors.New("program has no arguments"))
	}
	for _, path := range []string{s.Dir, s.Socket, s.Log} {
		if !filepath.IsAbs(path) {
			return invalid(fmt.Errorf("path %q is not absolute", path))
		}
	}
	return nil
}

func invalid(err error) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: "keeper", Kind: caisson.ErrInvalid, Err: err}
}

// Status is what a keeper says of itself.
type Status struct {
	PID     int           `json:"pid"`               // the keeper's
	Started bool          `json:"started"`           // the program was started
	MainPID int           `json:"main_pid"`          // on the host, 0 where not known
	BoxPID  int           `json:"box_pid,omitempty"` // of the sandbox's init, on the host, 0 where not known
	Exit    *caisson.Exit `json:"exit,omitempty"`
	Execs   int           `json:"execs"`  // live exec sessions
	Owners  int           `json:"owners"` // connections that called Own
	Paused  bool          `json:"paused"`
	Kept    bool          `json:"kept,omitempty"` // the program has ended, and execs are possible
}

// ReadRecord reads the keeper.json in dir. One that can't be read as such was
// being written when the host went down: it is as if it were not there.
//
// Errors: an os.ErrNotExist.
func ReadRecord(dir string) (*Record, error) {
	path := filepath.Join(dir, RecordFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	record := new(Record)
	if json.Unmarshal(data, record) != nil {
		return nil, &os.PathError{Op: "read", Path: path, Err: os.ErrNotExist}
	}
	return record, nil
}

// A Record is keeper.json: how a living keeper is found and told from another
// process with its pid.
type Record struct {
	Version   int    `json:"version"`
	ID        string `json:"id"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // of the process in clock ticks since boot; 0 where not known
	BootID    string `json:"boot_id"`
	Socket    string `json:"socket"`
}
