package wire

import (
	"encoding/json"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// The operations of a Request.
const (
	OpHello   = "hello" // the first request of a connection, and only that
	OpStatus  = "status"
	OpOwn     = "own"
	OpStart   = "start"
	OpWait    = "wait" // answered when the exit is durable
	OpSignal  = "signal"
	OpStop    = "stop"
	OpPause   = "pause"
	OpResume  = "resume"
	OpStats   = "stats"
	OpRoot    = "root"
	OpSockets = "sockets"
	OpDo      = "do"
	OpExec    = "exec"   // answered when it runs, and again, with Ended, when it has ended
	OpAssign  = "assign" // another program, before start
	OpDestroy = "destroy"
)

// Limits of what a keeper accepts.
const (
	MaxHello   = 256     // bytes of the first request
	MaxRequest = 8 << 20 // bytes of another: the kernel's limit of arguments, escaped
	MaxReply   = 1 << 20 // bytes of an answer; a client refuses more
	MaxConns   = 256     // open at once
	// MaxParams and MaxResult bound what goes along with OpDo, in bytes. An answer is
	// sent without waiting, so it must fit into what the system holds.
	MaxParams = 1 << 20
	MaxResult = 32 << 10
	// MaxDoing is how many OpDo may be under way: others still find a connection.
	MaxDoing = 64
	// Patience is how long a request may take to come in once it has begun,
	// and how long a new connection may take to say hello.
	Patience = 10 * time.Second
)

// A Request is what a client asks. ID is chosen by the client and returned
// with the answer. A signal, after an exec on the same connection, is for the
// program of that exec.
type Request struct {
	ID      uint32           `json:"id"`
	Op      string           `json:"op"`
	Version int              `json:"version,omitempty"` // with OpHello
	Signal  int              `json:"signal,omitempty"`  // with OpSignal and OpStop
	Reason  caisson.Reason   `json:"reason,omitempty"`  // with OpStop
	Grace   caisson.Duration `json:"grace,omitempty"`   // with OpStop
	Timeout caisson.Duration `json:"timeout,omitempty"` // with OpExec
	Program *isolate.Program `json:"program,omitempty"` // with OpExec
	Assign  *Assignment      `json:"assign,omitempty"`  // with OpAssign
	// Name and Params are what the box is asked with OpDo.
	Name   string          `json:"name,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
}

// A Reply is an answer. Descriptors come along with those of OpRoot (the folder),
// OpSockets (the box's, in order), OpExec (stdin, stdout and stderr, or the
// terminal) and OpDo (the box's).
type Reply struct {
	ID     uint32        `json:"id"`
	Error  *Failure      `json:"error,omitempty"`
	Status *Status       `json:"status,omitempty"`
	Stats  *Usage        `json:"stats,omitempty"`
	Exit   *caisson.Exit `json:"exit,omitempty"`
	Ended  bool          `json:"ended,omitempty"` // an exec's second answer
	// Result is what the box answers to OpDo, if anything.
	Result json.RawMessage `json:"result,omitempty"`
	// Version is the keeper's, in the answer to OpHello.
	Version int `json:"version,omitempty"`
	// Gone says that the sandbox was destroyed: nothing comes after it. It
	// answers no request.
	Gone bool `json:"gone,omitempty"`
}

// A Failure is an error on its way to a client.
type Failure struct {
	Op      caisson.Op   `json:"op,omitempty"`
	Item    string       `json:"item,omitempty"`
	Kind    caisson.Kind `json:"kind"`
	Message string       `json:"message"`
	// NoIdmap says that it is isolate.ErrNoIdmap, which engines look for.
	NoIdmap bool `json:"no_idmap,omitempty"`
}

// maxMessage bounds the text of an error or an exit: paths and names in it may
// be of any length.
const maxMessage = 1 << 10

// Cut returns text, shortened if it is too long to be passed on.
func Cut(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return text[:maxMessage] + "..."
}

// NewFailure turns err into a Failure; nil into nil.
func NewFailure(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Kind: kindOf(err), Message: Cut(err.Error()), NoIdmap: errors.Is(err, isolate.ErrNoIdmap)}
	if sorted, ok := err.(*caisson.Error); ok && sorted.Err != nil {
		f.Op, f.Item, f.Message = sorted.Op, Cut(sorted.Item), Cut(sorted.Err.Error())
	}
	return f
}

// kinds sorts what the system says where nobody has sorted it.
var kinds = []struct {
	err  error
	kind caisson.Kind
}{
	{syscall.ENOSPC, caisson.ErrExhausted},
	{syscall.EDQUOT, caisson.ErrExhausted},
	{syscall.EMFILE, caisson.ErrExhausted},
	{syscall.ENFILE, caisson.ErrExhausted},
	{syscall.ENOMEM, caisson.ErrExhausted},
	{syscall.EAGAIN, caisson.ErrExhausted},
	{os.ErrPermission, caisson.ErrDenied},
	{syscall.EROFS, caisson.ErrDenied},
	{os.ErrNotExist, caisson.ErrNotFound},
}

func kindOf(err error) caisson.Kind {
	kind := caisson.KindOf(err)
	for _, k := range kinds {
		if kind == caisson.ErrUnknown && errors.Is(err, k.err) {
			return k.kind
		}
	}
	return kind
}

// Err returns the error that f tells of; nil for nil.
func (f *Failure) Err() error {
	if f == nil {
		return nil
	}
	cause := errors.New(f.Message)
	if f.NoIdmap {
		cause = noIdmap{cause}
	}
	return &caisson.Error{Op: f.Op, Item: f.Item, Kind: f.Kind, Err: cause}
}

// noIdmap is isolate.ErrNoIdmap with the message that came along.
type noIdmap struct{ error }

// Is implements what errors.Is looks for.
func (noIdmap) Is(target error) bool { return target == isolate.ErrNoIdmap }

// Usage is isolate.Stats in a form in which -1, for what can't be measured,
// can be passed on.
type Usage struct {
	CPU        int64 `json:"cpu"` // nanoseconds
	Memory     int64 `json:"memory"`
	PeakMemory int64 `json:"peak_memory"`
	PIDs       int64 `json:"pids"`
	OOMKills   int64 `json:"oom_kills"`
	Throttled  int64 `json:"throttled"` // nanoseconds
}

// NewUsage returns s as Usage.
func NewUsage(s isolate.Stats) *Usage {
	return &Usage{
		CPU: int64(s.CPU), Memory: int64(s.Memory), PeakMemory: int64(s.PeakMemory),
		PIDs: s.PIDs, OOMKills: s.OOMKills, Throttled: int64(s.Throttled),
	}
}

// Stats returns u as isolate.Stats.
func (u *Usage) Stats() isolate.Stats {
	return isolate.Stats{
		CPU: time.Duration(u.CPU), Memory: caisson.Bytes(u.Memory), PeakMemory: caisson.Bytes(u.PeakMemory),
		PIDs: u.PIDs, OOMKills: u.OOMKills, Throttled: time.Duration(u.Throttled),
	}
}
