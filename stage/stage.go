// Package stage is the contract for moving data into and out of the work
// folder. Package stagetest checks implementations.
package stage

import (
	"context"
	"io/fs"
	"os"

	"github.com/caissonrun/caisson"
)

// A Stager moves data for some URL schemes. It has Fetcher, Storer or both.
type Stager interface {
	// Schemes returns the schemes it serves, such as "file" or "https".
	Schemes() []string
}

// A Fetcher brings data in.
type Fetcher interface {
	Stager

	// CheckInput says what is wrong with in before anything is fetched.
	// Errors: ErrInvalid; ErrDenied where the operator does not permit it.
	CheckInput(in *caisson.Input, env *Env) error

	// Fetch brings in.From to work at in.To (or, where nothing may be copied
	// and in.Writable is not set, says in Fetched.Bind what to bind there
	// read-only). What it leaves after an error or a crash is removed with the
	// work folder. The digest and the size limit are checked while the data
	// streams; nothing with a wrong digest stays at in.To.
	//
	// Errors: ErrNotFound if there is no such data, unless in.Optional is set:
	// that is Fetched.Absent; ErrInvalid if the digest or size is wrong;
	// ErrDenied; ErrUnavailable if the source does not answer; ErrExhausted if
	// the disk is full.
	Fetch(ctx context.Context, in *caisson.Input, work *os.Root, env *Env) (*Fetched, error)
}

// Fetched is what Fetch did.
type Fetched struct {
	Absent bool   // there is no such data, and it is optional
	Bytes  int64  // size of the data
	SHA256 string // of a single file, where it was computed
	// Bind is a host path, without symbolic links in it, to be bound read-only
	// over in.To, where Fetch has left an empty file or folder. The program's
	// user can read all of it with the ids that it has on the host.
	Bind string
}

// A Storer takes data out.
type Storer interface {
	Stager

	// CheckOutput says what is wrong with out before the task runs.
	CheckOutput(out *caisson.Output, env *Env) error

	// Store writes the files to out.To, each appearing completely or not at
	// all, and durable when it returns. Storing the same again is harmless.
	Store(ctx context.Context, out *caisson.Output, files []File, env *Env) ([]caisson.OutputFile, error)
}

// A File is one entry of the work folder that an output's glob matched, opened
// without following anything that the task made.
type File struct {
	Path  string      // relative to the work folder, slashes, clean
	Rel   string      // below the output's destination folder
	Match string      // the path that the glob matched: Path, or a folder above it
	Mode  fs.FileMode // type (regular, folder, symbolic link) and permission bits only
	Size  int64
	Link  string // of a symbolic link: its target, which leads to nothing outside of Match
	// Open opens a regular file for reading.
	Open func() (*os.File, error)
}

// Env is what a stager knows about its surroundings.
type Env struct {
	BaseDir  string // that relative file: paths start from, absolute
	Trusted  bool   // file: paths act with the caller's rights, as on the command line
	NoBind   bool   // Fetched.Bind must not be used: the engine can't, or an output may read it
	Temp     string // private folder for what is on its way, best on the work folder's file system; empty: the system's
	Token    string // names the attempt: what an earlier, killed Store of it left half made is replaced; empty: nothing is known of one
	UID, GID int    // who staged-in files belong to on disk; ignored without the right to give files away
	OutUID   int    // who staged-out files belong to: the submitter
	OutGID   int
	Secrets  map[string]string       // values by name, for credentials
	Progress func(done, total int64) // may be nil; total -1 where unknown
}
