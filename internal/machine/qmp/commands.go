package qmp

import (
	"context"
	"fmt"
	"time"

	"github.com/caissonrun/caisson"
)

// A Status is what a machine does.
type Status struct {
	Running bool `json:"running"`
	// Status is one of QEMU's words, such as running, paused, postmigrate,
	// shutdown, guest-panicked, inmigrate, internal-error.
	Status string `json:"status"`
}

// Status asks what the machine does.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.Do(ctx, "query-status", nil, &s)
	return s, err
}

// Pause halts the machine's processors.
func (c *Client) Pause(ctx context.Context) error { return c.Do(ctx, "stop", nil, nil) }

// Continue lets them go on, or begin.
func (c *Client) Continue(ctx context.Context) error { return c.Do(ctx, "cont", nil, nil) }

// Powerdown presses the machine's power button. The guest does what it likes.
func (c *Client) Powerdown(ctx context.Context) error {
	return c.Do(ctx, "system_powerdown", nil, nil)
}

// Quit ends QEMU, whatever the guest does, and returns when it has let go of the
// connection.
func (c *Client) Quit(ctx context.Context) error {
	if err := c.Do(ctx, "quit", nil, nil); err != nil && ctx.Err() != nil {
		return err
	}
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("quit: %w", ctx.Err())
	}
}

// Screendump has QEMU write what the screen shows to a file of its own, which it
// must be able to write to. png needs QEMU 7.1; otherwise it is PPM.
func (c *Client) Screendump(ctx context.Context, path string, png bool) error {
	args := map[string]any{"filename": path}
	if png {
		args["format"] = "png"
	}
	return c.Do(ctx, "screendump", args, nil)
}

// A Node is a block device as QEMU has them.
type Node struct {
	Driver string `json:"driver"`    // such as qcow2
	Name   string `json:"node-name"` // new
	File   string `json:"-"`         // by its path
}

// Snapshot has writes to the node of that name go to another from here on: an
// empty file in the format of over, which exists.
func (c *Client) Snapshot(ctx context.Context, node string, over Node) error {
	add := map[string]any{
		"driver": over.Driver, "node-name": over.Name, "backing": nil,
		"file": map[string]any{"driver": "file", "filename": over.File},
	}
	if err := c.Do(ctx, "blockdev-add", add, nil); err != nil {
		return err
	}
	err := c.Do(ctx, "blockdev-snapshot", map[string]any{"node": node, "overlay": over.Name}, nil)
	if err != nil {
		// A node that nobody uses holds its file.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = c.Do(ctx, "blockdev-del", map[string]any{"node-name": over.Name}, nil)
	}
	return err
}

// A Migration is how far a machine's state has been written, or read.
type Migration struct {
	// Status is one of QEMU's words: none, setup, active, completed, failed,
	// cancelled and some more. Empty: there has been none.
	Status string `json:"status"`
	Error  string `json:"error-desc"`
	RAM    struct {
		Transferred int64 `json:"transferred"` // bytes
		Total       int64 `json:"total"`
	} `json:"ram"`
}

// Migration asks how far it is.
func (c *Client) Migration(ctx context.Context) (m Migration, err error) {
	err = c.Do(ctx, "query-migrate", nil, &m)
	return m, err
}

// Migrate begins to write the machine's state to where uri says, such as
// exec:COMMAND (which QEMU's own sandbox forbids), or fd:NAME of SendFile.
func (c *Client) Migrate(ctx context.Context, uri string) error {
	return c.Do(ctx, "migrate", map[string]any{"uri": uri}, nil)
}

// Incoming begins to read the state of a machine that was started to wait for it.
func (c *Client) Incoming(ctx context.Context, uri string) error {
	return c.Do(ctx, "migrate-incoming", map[string]any{"uri": uri}, nil)
}

// SetMigration sets parameters, such as max-bandwidth.
func (c *Client) SetMigration(ctx context.Context, parameters map[string]any) error {
	return c.Do(ctx, "migrate-set-parameters", parameters, nil)
}

// AwaitMigration asks again and again until the state is written or read whole.
//
// Errors: ErrUnavailable with QEMU's reason if it was not.
func (c *Client) AwaitMigration(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		m, err := c.Migration(ctx)
		if err != nil {
			return err
		}
		switch m.Status {
		case "completed":
			return nil
		case "failed", "cancelled", "cancelling":
			return &caisson.Error{Item: "qemu", Kind: caisson.ErrUnavailable, Err: fmt.Errorf("the machine's state: %s: %q", m.Status, shorten(m.Error))}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("migration: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// AddVNC hands a connection of a viewer, sent as a file of that name, to the
// machine's VNC server, which need not listen anywhere.
func (c *Client) AddVNC(ctx context.Context, file string) error {
	return c.Do(ctx, "add_client", map[string]any{"protocol": "vnc", "fdname": file, "skipauth": true}, nil)
}

// CloseFile has QEMU close a file that was sent, and not used up since.
func (c *Client) CloseFile(ctx context.Context, name string) error {
	return c.Do(ctx, "closefd", map[string]any{"fdname": name}, nil)
}

// Viewers asks how many are connected to the machine's VNC server.
func (c *Client) Viewers(ctx context.Context) (int, error) {
	var servers []struct {
		Clients []struct{} `json:"clients"`
	}
	if err := c.Do(ctx, "query-vnc-servers", nil, &servers); err != nil {
		return 0, err
	}
	n := 0
	for _, s := range servers {
		n += len(s.Clients)
	}
	return n, nil
}
