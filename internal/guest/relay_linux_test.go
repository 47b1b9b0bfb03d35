package guest_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
)

// sharedConn returns a connection of Share.
func sharedConn(t *testing.T, c *guest.Client) net.Conn {
	t.Helper()
	f, err := c.Share()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// share begins a session as another process would.
func share(t *testing.T, c *guest.Client) *guest.Client {
	t.Helper()
	shared := dial(t, sharedConn(t, c))
	if shared.Boot() != c.Boot() {
		t.Error("it is another agent")
	}
	return shared
}

// directAndShared runs a test with each kind of agent, and again by a connection that
// is shared.
func directAndShared(t *testing.T, f func(t *testing.T, c *guest.Client)) {
	t.Helper()
	inEveryWay(t, func(t *testing.T, c *guest.Client) {
		t.Run("direct", func(t *testing.T) { f(t, c) })
		t.Run("shared", func(t *testing.T) { f(t, share(t, c)) })
	})
}

// TestSharedRefused has everything refused but files.
func TestSharedRefused(t *testing.T) {
	checkLeaks(t)
	c := share(t, dial(t, startAgent(t, nil)))
	ctx := testContext(t)
	refused := map[string]error{
		"Kill": c.Kill(ctx), "Freeze": c.Freeze(ctx, true), "SetRoot": c.SetRoot(ctx, "/"), "PowerOff": c.PowerOff(ctx, false),
		"Mount":     c.Mount(ctx, &guest.Mount{Type: "proc", Target: "/proc"}),
		"WriteFile": c.WriteFile(ctx, &guest.File{Path: []byte("/tmp/x")}),
	}
	_, refused["Spawn"] = c.Spawn(ctx, &guest.Program{Program: isolate.Program{Args: []string{"/bin/true"}}})
	_, refused["Listen"] = c.Listen(ctx, nil, false)
	_, refused["Info"] = c.Info(ctx)
	for what, err := range refused {
		if !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("%s = %v, want ErrUnsupported", what, err)
		}
	}
	if err := c.Ping(ctx); err != nil {
		t.Error(err)
	}
}

// TestSharedAtOnce has several sessions read, list and put at once, with one reader
// that does not read and holds up nobody.
func TestSharedAtOnce(t *testing.T) {
	checkLeaks(t)
	c := dial(t, startAgent(t, nil))
	dir, name := openFolder(t)
	big := strings.Repeat("0123456789", 50_000)
	write(t, dir, map[string]string{"big": big})
	stuck, err := share(t, c).FS(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	idle, err := stuck.Open(name + "/big")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for n := range 4 {
		shared := share(t, c)
		for i := range 4 {
			all.Go(func() {
				files, err := shared.FS(testContext(t))
				if err != nil {
					t.Error(err)
					return
				}
				defer files.Close()
				if got, err := fs.ReadFile(files, name+"/big"); string(got) != big || err != nil {
					t.Errorf("%d bytes, %v", len(got), err)
				}
				text := fmt.Sprint(n, i)
				if err := shared.Put(testContext(t), name, oneFile(t, text), nil); err != nil {
					t.Error(err)
				}
				if got, err := os.ReadFile(dir + "/" + text); string(got) != text || err != nil {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
	}
	all.Wait()
	if got, err := io.ReadAll(idle); string(got) != big || err != nil {
		t.Errorf("the slow reader has %d bytes, %v", len(got), err)
	}
}

// TestSharedGivenUp makes more calls than there can be, one after the other, none of
// which is read to its end.
func TestSharedGivenUp(t *testing.T) {
	checkLeaks(t)
	c := dial(t, startAgent(t, nil))
	dir, name := openFolder(t)
	write(t, dir, map[string]string{"big": strings.Repeat("x", 1<<20)})
	shared := share(t, c)
	files, err := shared.FS(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	for i := range 600 {
		f, err := files.Open(name + "/big")
		if errors.Is(err, caisson.ErrExhausted) {
			// Those that were given up end soon.
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		f.Close()
	}
	eventually(t, "files can be opened", func() bool {
		f, err := files.Open(name + "/big")
		if err == nil {
			f.Close()
		}
		return err == nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	defer r.Close()
	put := make(chan error)
	go func() { put <- shared.Put(ctx, name, r, nil) }()
	if _, err := w.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	cancel()
	w.Close()
	if err := <-put; !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, want that it was given up", err)
	}
}

// TestSharedEnds has each side's end be the end of it, and of nothing else.
func TestSharedEnds(t *testing.T) {
	open := func(t *testing.T, c *guest.Client) fs.File {
		t.Helper()
		dir, name := openFolder(t)
		write(t, dir, map[string]string{"big": strings.Repeat("x", 1<<20)})
		files, err := c.FS(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		f, err := files.Open(name + "/big")
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	t.Run("reader", func(t *testing.T) {
		checkLeaks(t)
		c := dial(t, startAgent(t, nil))
		conn := sharedConn(t, c)
		open(t, dial(t, conn))
		conn.Close()
		if err := c.Ping(testContext(t)); err != nil {
			t.Error(err)
		}
		open(t, share(t, c))
	})
	t.Run("client", func(t *testing.T) {
		checkLeaks(t)
		c := dial(t, startAgent(t, nil))
		shared := share(t, c)
		f := open(t, shared)
		c.Close()
		<-shared.Done()
		if _, err := io.ReadAll(f); !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("Read = %v, want ErrUnavailable", err)
		}
		if _, err := c.Share(); !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("Share = %v, want ErrUnavailable", err)
		}
	})
	t.Run("agent", func(t *testing.T) {
		checkLeaks(t)
		host := startAgent(t, nil)
		shared := share(t, dial(t, host))
		f := open(t, shared)
		host.Close()
		<-shared.Done()
		if _, err := io.ReadAll(f); !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("Read = %v, want ErrUnavailable", err)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		checkLeaks(t)
		c := dial(t, startAgent(t, nil))
		conn := sharedConn(t, c)
		shared := dial(t, lent{conn})
		if _, err := conn.Write(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		<-shared.Done()
		if err := c.Ping(testContext(t)); err != nil {
			t.Error(err)
		}
	})
}

// TestSharedTooMany bounds the connections, also of those who say nothing.
func TestSharedTooMany(t *testing.T) {
	checkLeaks(t)
	c := dial(t, startAgent(t, nil))
	var list []*os.File
	for {
		f, err := c.Share()
		if errors.Is(err, caisson.ErrExhausted) {
			break
		}
		if err != nil || len(list) > 1000 {
			t.Fatalf("connection %d: %v", len(list), err)
		}
		list = append(list, f)
	}
	for _, f := range list {
		f.Close()
	}
	eventually(t, "there is room again", func() bool {
		f, err := c.Share()
		if err == nil {
			f.Close()
		}
		return err == nil
	})
}

// TestSharedLies has an agent end calls before their streams, answer too much, and
// answer nothing.
func TestSharedLies(t *testing.T) {
	t.Run("ends before its stream", func(t *testing.T) {
		c := newFake(t, func(f *fake) {
			for {
				_, id := f.opened()
				if id == 0 || !f.send(&wire.Frame{Kind: wire.KindData, Call: id, Stream: 1, Body: []byte("part")}) {
					return
				}
				f.send(answer(wire.KindEnd, id, `{}`))
			}
		})
		shared := share(t, c)
		if err := shared.Tar(testContext(t), "x", io.Discard); err == nil {
			t.Error("half an archive was taken for a whole one")
		}
	})
	t.Run("breaks a rule", func(t *testing.T) {
		c := newFake(t, func(f *fake) {
			_, id := f.opened()
			f.send(&wire.Frame{Kind: wire.KindData, Call: id, Stream: 2, Body: []byte("x")})
			f.drain()
		})
		shared := share(t, c)
		if err := shared.Tar(testContext(t), "x", io.Discard); !errors.Is(err, caisson.ErrUnavailable) {
			t.Errorf("Tar = %v, want ErrUnavailable", err)
		}
		<-c.Done()
	})
	t.Run("answers nothing", func(t *testing.T) {
		c := newFake(t, func(f *fake) { f.drain() })
		shared := share(t, c)
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := shared.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ping = %v", err)
		}
		if err := shared.Put(ctx, "x", blockedReader{ctx}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Put = %v", err)
		}
		c.Close()
		<-shared.Done()
	})
}

// oneFile returns an archive of one file that holds its name.
func oneFile(t *testing.T, name string) io.Reader {
	t.Helper()
	var stream bytes.Buffer
	w := tar.NewWriter(&stream)
	err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(name)), Mode: 0o644})
	if err == nil {
		_, err = io.WriteString(w, name)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Error(err)
	}
	return &stream
}

// A blockedReader has nothing until its context ends.
type blockedReader struct{ ctx context.Context }

// Read implements io.Reader.
func (r blockedReader) Read([]byte) (int, error) {
	<-r.ctx.Done()
	return 0, r.ctx.Err()
}
