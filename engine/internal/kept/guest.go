package kept

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/safefs"
)

// dialGuest begins a session of its own with the agent in the sandbox, for files, and
// returns who programs there run as.
func (s *sandbox) dialGuest(ctx context.Context) (*guest.Client, *guest.Owner, error) {
	if err := s.alive(caisson.OpFiles); err != nil {
		return nil, nil, err
	}
	if s.keeper() == nil {
		return nil, nil, s.lostBefore(caisson.OpFiles)
	}
	owner := new(guest.Owner)
	files, err := s.keeper().Do(ctx, FilesOp, nil, owner)
	if err != nil {
		return nil, nil, s.guestSaid(err)
	}
	var conn net.Conn
	if len(files) == 1 {
		conn, err = net.FileConn(files[0])
	} else {
		err = errors.New("caisson: bug: the box has not answered with a connection")
	}
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		return nil, nil, s.said(caisson.OpFiles, err)
	}
	client, err := guest.Dial(ctx, conn, nil)
	if err != nil {
		return nil, nil, s.guestSaid(err)
	}
	return client, owner, nil
}

// guestSaid describes an error of the box's, or of the agent's: where the machine has
// ended there are no files any more.
func (s *sandbox) guestSaid(err error) error {
	if errors.Is(err, caisson.ErrEnded) {
		err = &caisson.Error{Op: caisson.OpFiles, Item: s.id, Kind: caisson.ErrAborted, Err: err}
	}
	return s.said(caisson.OpFiles, err)
}

// A guestFS is the files of a sandbox that is a machine, with the session that they
// are had by.
type guestFS struct {
	*guest.FS
	client *guest.Client
}

// Close implements engine.FS.
func (f guestFS) Close() error { return errors.Join(f.FS.Close(), f.client.Close()) }

func (s *sandbox) guestFS(ctx context.Context) (engine.FS, error) {
	client, _, err := s.dialGuest(ctx)
	if err != nil {
		return nil, err
	}
	files, err := client.FS(ctx)
	if err != nil {
		client.Close()
		return nil, s.guestSaid(err)
	}
	return guestFS{files, client}, nil
}

func (s *sandbox) guestTar(ctx context.Context, name string, w io.Writer) error {
	return s.inGuest(ctx, name, func(client *guest.Client, name string, _ *guest.Owner) error {
		return client.Tar(ctx, name, w)
	})
}

func (s *sandbox) guestPut(ctx context.Context, name string, r io.Reader) error {
	return s.inGuest(ctx, name, func(client *guest.Client, name string, owner *guest.Owner) error {
		return client.Put(ctx, name, r, owner)
	})
}

// inGuest calls do with a session and a name below the root.
func (s *sandbox) inGuest(ctx context.Context, name string, do func(client *guest.Client, name string, owner *guest.Owner) error) error {
	client, owner, err := s.dialGuest(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	clean, err := cleanName(name)
	if err == nil {
		err = do(client, clean, owner)
	}
	if err != nil && client.Err() != nil {
		return s.guestSaid(err)
	}
	return safefs.Sorted(caisson.OpFiles, name, err)
}
