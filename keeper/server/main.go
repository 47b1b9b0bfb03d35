//go:build unix

package server

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/version"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// Main is a keeper from its start to its end, and returns the exit status of
// its process. args are those after the program's name or after the
// subcommand: "version", or nothing.
//
// The spec is read from stdin, as keeper.Launch writes it; what came of it is
// written to stdout.
func Main(args []string) int { return MainWith(args, nil) }

// MainWith is Main of a keeper that knows more kinds of sandboxes, see
// wire.Foreign.
func MainWith(args []string, openers map[string]Opener) int {
	if len(args) > 0 {
		if len(args) == 1 && args[0] == "version" {
			os.Stdout.WriteString(wire.VersionText(version.Get()))
			return 0
		}
		os.Stderr.WriteString(wire.Argv0 + ": it is started by caisson only; the one argument that it takes is \"version\"\n")
		return 2
	}
	setName(wire.Argv0)
	closeInherited()
	ignoreSignals()
	unix.Umask(0o077)

	k, err := launch(os.Stdin, openers)
	if err != nil {
		announce(&wire.Launched{Error: wire.NewFailure(err)})
		return 1
	}
	if err := k.confirm(os.Stdin); err != nil {
		// The launcher has died or given up.
		k.giveUp()
		return 1
	}
	silence()
	k.trimLater()
	<-k.quit
	return 0
}

// ignoreSignals keeps a keeper alive that is sent what a terminal or a service
// manager sends to everything, or whose launcher is gone: the program's end is
// what ends it. The signals are caught rather than ignored, because ignoring
// would be inherited.
func ignoreSignals() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
}

// launch reads the spec and makes the sandbox that it asks for.
func launch(input io.Reader, openers map[string]Opener) (*keeper, error) {
	spec, err := readSpec(input)
	if err != nil {
		return nil, err
	}
	return open(spec, openers)
}

func readSpec(input io.Reader) (*wire.Spec, error) {
	var head [4]byte
	if _, err := io.ReadFull(input, head[:]); err != nil {
		return nil, invalidSpec(err)
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > wire.MaxSpec {
		return nil, invalidSpec(fmt.Errorf("%d bytes are more than %d", size, wire.MaxSpec))
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(input, body); err != nil {
		return nil, invalidSpec(err)
	}
	spec := new(wire.Spec)
	// A field that this keeper does not know may be one that isolates.
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(spec); err != nil {
		// The error may quote a value, and some are secret.
		return nil, invalidSpec(errors.New("not the JSON of a spec that this keeper knows; it may be of another version than the program"))
	}
	return spec, spec.Check()
}

func invalidSpec(err error) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: "keeper's spec", Kind: caisson.ErrInvalid, Err: err}
}

// announce tells the launcher how it went.
func announce(launched *wire.Launched) error {
	line, err := json.Marshal(launched)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(line, '\n'))
	return err
}

// confirm tells the launcher that the sandbox is in place, and waits until it
// says that it wants it.
func (k *keeper) confirm(input io.Reader) error {
	if err := announce(&wire.Launched{Ready: true}); err != nil {
		return err
	}
	var ack [1]byte
	if _, err := io.ReadFull(input, ack[:]); err != nil {
		return err
	}
	if ack[0] != wire.Ack {
		return errors.New("the launcher says something else")
	}
	return nil
}

// silence lets go of the launcher's pipes.
func silence() {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	for fd := range 3 {
		redirect(null, fd)
	}
	unix.Close(null)
}
