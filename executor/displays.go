//go:build unix

package executor

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/rfb"
)

// pictureTime bounds how long a display may take to show a picture.
const pictureTime = 30 * time.Second

// Displays lists the screens of the task's running sandbox, or of the one that is
// kept. Errors: as Exec.
func (x *Executor) Displays(ctx context.Context, id string) ([]engine.Display, error) {
	displayer, err := x.displayer(ctx, id)
	if err != nil {
		return nil, err
	}
	return x.displays(ctx, displayer)
}

func (x *Executor) displays(ctx context.Context, displayer engine.Displayer) (list []engine.Display, err error) {
	err = x.guard(caisson.OpDisplay, func() (err error) {
		list, err = displayer.Displays(ctx)
		return err
	})
	return list, err
}

// OpenDisplay connects to a screen, as engine.Displayer does. An empty name is that
// of the first. Errors: as Exec; ErrNotFound if there is no such display.
func (x *Executor) OpenDisplay(ctx context.Context, id, name string) (stream io.ReadWriteCloser, err error) {
	displayer, err := x.displayer(ctx, id)
	if err != nil {
		return nil, err
	}
	if name == "" {
		list, err := x.displays(ctx, displayer)
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return nil, &caisson.Error{Op: caisson.OpDisplay, Item: "task " + id, Kind: caisson.ErrNotFound, Err: errors.New("it has no displays")}
		}
		name = list[0].Name
	}
	err = x.guard(caisson.OpDisplay, func() (err error) {
		stream, err = displayer.OpenDisplay(ctx, name)
		return err
	})
	return stream, err
}

// Screenshot takes a picture of what a screen shows; see OpenDisplay. What is
// there may be the task's own server: a picture of any content, bounded in size.
//
// Errors: as OpenDisplay; ErrUnavailable if the screen can't be read, or shows
// nothing for too long; ErrDenied if it wants a password.
func (x *Executor) Screenshot(ctx context.Context, id, name string) (image.Image, error) {
	limited, cancel := context.WithTimeout(ctx, pictureTime)
	defer cancel()
	stream, err := x.OpenDisplay(limited, id, name)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	defer context.AfterFunc(limited, func() { stream.Close() })()
	client, err := rfb.New(stream)
	if err != nil {
		return nil, unseen(ctx, limited, err)
	}
	picture, err := client.Capture()
	if err != nil {
		return nil, unseen(ctx, limited, err)
	}
	return picture, nil
}

// unseen says so where the time was up.
func unseen(ctx, limited context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return &caisson.Error{
			Op: caisson.OpDisplay, Item: "picture", Kind: caisson.ErrUnavailable,
			Err: fmt.Errorf("the display shows nothing within %s: its server may be halted", pictureTime),
		}
	}
	return err
}

func (x *Executor) displayer(ctx context.Context, id string) (engine.Displayer, error) {
	sb, err := x.entered(ctx, id)
	if err != nil {
		return nil, err
	}
	displayer, ok := sb.(engine.Displayer)
	if !ok {
		return nil, cannot(caisson.OpDisplay, "show a sandbox's screen")
	}
	return displayer, nil
}
