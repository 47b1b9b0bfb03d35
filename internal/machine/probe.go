package machine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/early"
)

// The time within which a guest that does nothing has booted. The real time is a
// second with KVM, and three to ten when the processor is emulated.
const (
	kvmLimit = 10 * time.Second
	tcgLimit = 60 * time.Second
)

// probeMemory is a probed guest's.
const probeMemory = caisson.Bytes(256 << 20)

// ProbeOptions say what is tried.
type ProbeOptions struct {
	QEMU   *QEMU
	Kernel *Kernel
	// Init is the file of a static program that becomes /init, and Config is for
	// it. Greet talks to it at the port, whose deadline is set, and returns the
	// kernel's release as the guest has seen it. Nil: it is program hello.
	Init   string
	Config []byte
	Greet  func(port net.Conn) (release string, err error)
	// Types and Accels are what to try. Nil: all that there are, KVM first.
	Types, Accels []string
	// Limit is how long a guest may take until it says hello. Zero: 10 seconds
	// with KVM, and 60 with TCG.
	Limit time.Duration
	// Dir is where temporary files go. Empty: the system's folder for them.
	Dir string
}

// A Boot says whether one kind of machine boots here.
type Boot struct {
	Type, Accel string
	// Took is the time from the start of QEMU to the guest's hello; 0 if there
	// was none.
	Took time.Duration
	// Release is the kernel's, as the guest has seen it.
	Release string
	// Missing says why there was none, in words an operator can act on. Empty: it
	// boots.
	Missing string
}

// Probe boots a guest with each type and accelerator, one after the other, and
// says which of them did. That a device exists, or that QEMU has a type of
// machine, proves nothing: there are hosts where /dev/kvm opens and makes a
// machine, and no guest ever runs. Nothing is left. ctx bounds the call: what was
// not tried by then is missing for that reason.
//
// Errors: ErrInvalid or ErrUnsupported if the initramfs can't be made; those of
// the file system. That a guest does not boot is no error.
func Probe(ctx context.Context, o *ProbeOptions) ([]Boot, error) {
	dir, err := os.MkdirTemp(o.Dir, "caisson-probe-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := writeProbe(o, initrd); err != nil {
		return nil, err
	}
	types, accels := o.Types, o.Accels
	if types == nil {
		types = []string{Q35, PC, MicroVM}
	}
	if accels == nil {
		accels = []string{KVM, TCG}
	}
	var boots []Boot
	for _, accel := range accels {
		missing := lacks(o.QEMU, accel)
		for _, kind := range types {
			b := Boot{Type: kind, Accel: accel, Missing: missing}
			if missing == "" {
				b = try(ctx, o, kind, accel, initrd)
			}
			// A host whose KVM runs nothing would cost the limit for each type.
			if b.Took == 0 && accel == KVM && missing == "" && ctx.Err() == nil && kind != MicroVM {
				missing = b.Missing
			}
			boots = append(boots, b)
		}
	}
	return boots, nil
}

// writeProbe writes the probed guest's initramfs.
func writeProbe(o *ProbeOptions, file string) (err error) {
	modules, err := OpenModules(o.Kernel)
	if err != nil {
		return err
	}
	plan, err := modules.Resolve("virtio_pci", "virtio_mmio", "virtio_console")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Emulated processors take longer to unpack it than to read it.
	_, err = (&Initramfs{Init: o.Init, Modules: plan.Load, Config: o.Config, Raw: true}).WriteTo(f)
	return err
}

// lacks says what of an accelerator is not even there.
func lacks(q *QEMU, accel string) string {
	if !slices.Contains(q.Accels, accel) {
		return fmt.Sprintf("QEMU %s has no accelerator %s", q.Version, accel)
	}
	if accel != KVM {
		return ""
	}
	if q.Arch != runtime.GOARCH {
		return "KVM runs machines of this host's processor only"
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "there is no /dev/kvm: the processor's virtualization is off, or this is a machine without it"
	case err != nil:
		return "/dev/kvm can't be opened: " + plainCause(err).Error()
	}
	f.Close()
	return ""
}

// try boots one guest.
func try(ctx context.Context, o *ProbeOptions, kind, accel, initrd string) Boot {
	b := Boot{Type: kind, Accel: accel}
	limit := o.Limit
	switch {
	case limit > 0:
	case accel == KVM:
		limit = kvmLimit
	default:
		limit = tcgLimit
	}
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	release, err := boot(ctx, o, kind, accel, initrd)
	switch {
	case err == nil:
		b.Took, b.Release = time.Since(began), release
	case outer.Err() != nil:
		b.Missing = "it was not tried to the end: " + outer.Err().Error()
	case ctx.Err() != nil && accel == KVM:
		b.Missing = fmt.Sprintf("/dev/kvm opens, but no guest boots within %s (%s)", limit, kind)
	case ctx.Err() != nil:
		b.Missing = fmt.Sprintf("no guest boots within %s", limit)
	default:
		b.Missing = err.Error()
	}
	return b
}

// boot boots a guest and returns which kernel it says that it has.
func boot(ctx context.Context, o *ProbeOptions, kind, accel, initrd string) (string, error) {
	s := &Spec{
		Type: kind, Accel: accel, Memory: probeMemory, Kernel: o.Kernel.Image, Initrd: initrd,
		Cmdline: []string{"quiet"}, QMP: Descriptor(qmpFD), Agent: Descriptor(agentFD),
		Unconfined: !o.QEMU.has("sandbox"),
	}
	if kind == MicroVM && accel == TCG {
		s.TSC = TSCKHz()
	}
	args, err := o.QEMU.Args(s)
	if err != nil {
		return "", plainKind(err)
	}
	p, err := start(ctx, o.QEMU.Path, args)
	if err != nil {
		return "", err
	}
	defer p.stop()
	stop := context.AfterFunc(ctx, func() { _ = p.agent.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	greet := o.Greet
	if greet == nil {
		greet = readHello
	}
	release, err := greet(p.agent)
	if err == nil {
		return release, nil
	}
	if ctx.Err() == nil {
		// QEMU has ended, or the guest has broken off. What QEMU said is whole once
		// nothing of it is left.
		p.stop()
		if why := p.stderr.last(); why != "" {
			err = errors.New(why)
		}
	}
	return "", fmt.Errorf("the guest does not boot: %w", err)
}

// readHello reads what a guest says first, and no more than a line of it.
func readHello(port net.Conn) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(port, 256)).ReadString('\n')
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it has ended without a word")
		}
		return "", err
	}
	release, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), early.Hello)
	if !ok || firstWord([]byte(release+" ")) != release {
		return "", fmt.Errorf("it says %q", line)
	}
	return release, nil
}

// plainKind is the cause of a sorted error, for a text that needs no more.
func plainKind(err error) error {
	var e *caisson.Error
	if errors.As(err, &e) && e.Err != nil {
		return e.Err
	}
	return err
}
