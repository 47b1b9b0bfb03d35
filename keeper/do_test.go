//go:build linux

package keeper_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper"
	"github.com/caissonrun/caisson/keeper/server"
)

const (
	// doerArg has this test's program be a keeper that knows boxes of doerKind.
	doerArg  = "keep-for-a-test"
	doerKind = "doer"
	// meeting is how many have to wait for each other.
	meeting = 5
)

// A doer is a box that is asked for things.
type doer struct {
	*isolate.Box
	closed chan struct{}

	mu   sync.Mutex
	here int
	all  chan struct{} // closed when so many are here as meet
}

func openDoer(json.RawMessage, bool) (server.Box, error) {
	box, err := isolate.Start(&isolate.Spec{ID: "test", None: true})
	if err != nil {
		return nil, err
	}
	return &doer{Box: box, closed: make(chan struct{}), all: make(chan struct{})}, nil
}

// Do implements server.Doer.
func (d *doer) Do(op string, params json.RawMessage) (json.RawMessage, []*os.File, error) {
	switch op {
	case "echo":
		return params, nil, nil
	case "large":
		return json.RawMessage(`"` + strings.Repeat("x", 40_000) + `"`), nil, nil
	case "pipe":
		r, w, err := os.Pipe()
		if err != nil {
			return nil, nil, err
		}
		return nil, []*os.File{r, w}, nil
	case "files":
		var files []*os.File
		for range isolate.MaxSockets + 1 {
			f, err := os.Open(os.DevNull)
			if err != nil {
				return nil, nil, err
			}
			files = append(files, f)
		}
		return nil, files, nil
	case "meet":
		d.mu.Lock()
		if d.here++; d.here == meeting {
			close(d.all)
		}
		d.mu.Unlock()
		<-d.all
		return nil, nil, nil
	case "wait":
		<-d.closed
		return nil, nil, errors.New("the box was closed")
	}
	return nil, nil, &caisson.Error{Op: caisson.OpFiles, Item: op, Kind: caisson.ErrNotFound, Err: errors.New("there is no such thing")}
}

// Close implements server.Box.
func (d *doer) Close() error {
	close(d.closed)
	return d.Box.Close()
}

// doing returns a sandbox whose box is a doer.
func doing(t *testing.T, script string) *kept {
	t.Helper()
	s := spec(t, script)
	s.Box.None = false // or the box is closed when the program has ended
	s.Foreign = &keeper.Foreign{Kind: doerKind, Data: json.RawMessage("{}")}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return launchBy(t, keeper.Command{self, doerArg}, s)
}

func TestDo(t *testing.T) {
	k := doing(t, "exit")
	if err := k.Own(k.ctx()); err != nil {
		t.Fatal(err)
	}
	phases := []struct {
		name  string
		enter func() error
	}{
		{"before the start", func() error { return nil }},
		{"started", func() error { return k.Start(k.ctx()) }},
		{"ended", func() error {
			_, err := k.Wait(k.ctx())
			return err
		}},
	}
	for _, phase := range phases {
		if err := phase.enter(); err != nil {
			t.Fatal(err)
		}
		var said []string
		files, err := k.Do(k.ctx(), "echo", []string{"a", phase.name}, &said)
		if err != nil || len(files) != 0 || len(said) != 2 || said[1] != phase.name {
			t.Errorf("%s: Do(echo) = %q, %v, %v", phase.name, said, files, err)
		}
	}
	if err := k.Destroy(k.ctx()); err != nil {
		t.Fatal(err)
	}
	_, err := k.Do(k.ctx(), "echo", nil, nil)
	wantKind(t, "Do after Destroy", err, caisson.ErrAborted)
}

// TestDoFiles has descriptors come along that the client's runtime waits for.
func TestDoFiles(t *testing.T) {
	k := doing(t, "exit")
	files, err := k.Do(k.ctx(), "pipe", nil, nil)
	if err != nil || len(files) != 2 {
		t.Fatalf("Do(pipe) = %v, %v, want two files", files, err)
	}
	defer files[0].Close()
	if _, err := files[1].WriteString("text"); err != nil {
		t.Fatal(err)
	}
	if err := files[1].Close(); err != nil {
		t.Fatal(err)
	}
	// Had the keeper kept its ends, this would not end.
	if data, err := io.ReadAll(files[0]); string(data) != "text" || err != nil {
		t.Errorf("the file says %q, %v", data, err)
	}
}

func TestDoErrors(t *testing.T) {
	k := doing(t, "exit")
	_, err := k.Do(k.ctx(), "nothing", nil, nil)
	wantKind(t, "Do that fails", err, caisson.ErrNotFound)
	if err != nil && !strings.Contains(err.Error(), "files: nothing: there is no such thing") {
		t.Errorf("Do that fails = %v, want what the box has said", err)
	}
	_, err = k.Do(k.ctx(), "large", nil, new(string))
	wantKind(t, "an answer that is too large", err, caisson.ErrInternal)
	_, err = k.Do(k.ctx(), "files", nil, nil)
	wantKind(t, "too many files", err, caisson.ErrInternal)
	_, err = k.Do(k.ctx(), "echo", strings.Repeat("x", 2<<20), nil)
	wantKind(t, "a request that is too large", err, caisson.ErrInvalid)
	_, err = k.Do(k.ctx(), "echo", nil, new(string))
	wantKind(t, "a result that is not there", err, caisson.ErrInternal)
	// None of that has harmed anything.
	var said int
	if _, err := k.Do(k.ctx(), "echo", 7, &said); said != 7 || err != nil {
		t.Errorf("Do(echo) = %d, %v", said, err)
	}
	if err := k.Client.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = k.Do(k.ctx(), "echo", nil, nil)
	wantKind(t, "Do after Close", err, caisson.ErrUnavailable)
}

// TestDoAtOnce has requests that wait for each other, and the keeper answer others
// meanwhile.
func TestDoAtOnce(t *testing.T) {
	k := doing(t, "exit")
	var all sync.WaitGroup
	for range meeting {
		all.Go(func() {
			if _, err := k.Do(k.ctx(), "meet", nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// TestDoTooMany refuses requests beyond the limit, and Destroy ends those that are
// under way.
func TestDoTooMany(t *testing.T) {
	k := doing(t, "exit")
	const most = 64
	answers := make(chan error, most)
	for range most {
		go func() {
			_, err := k.Do(k.ctx(), "wait", nil, nil)
			answers <- err
		}()
	}
	eventually(t, "so many are under way", func() bool {
		_, err := k.Do(k.ctx(), "echo", nil, nil)
		return errors.Is(err, caisson.ErrExhausted)
	})
	if _, err := k.Status(k.ctx()); err != nil {
		t.Errorf("Status = %v", err)
	}
	if err := k.Destroy(k.ctx()); err != nil {
		t.Fatal(err)
	}
	for range most {
		if err := <-answers; err == nil {
			t.Error("a request outlives its box")
		}
	}
}

// TestDoUnknown asks a box that answers no requests.
func TestDoUnknown(t *testing.T) {
	k := launch(t, spec(t, "exit"))
	_, err := k.Do(k.ctx(), "echo", nil, nil)
	wantKind(t, "Do", err, caisson.ErrUnsupported)
}
