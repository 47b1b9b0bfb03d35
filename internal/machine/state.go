package machine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine/qmp"
)

// shapeVersion is the version of shapes, and of what a state has: those of another one
// are of no use.
const shapeVersion = 2

// A Shape is what a machine must have in common with the one whose state is to go
// on in it: what QEMU needs, and what the guest has seen already. Paths, the
// machine's UUID and what is in disks that it writes to are not part of it.
type Shape struct {
	Version int `json:"version"`
	// QEMU is its version with what the distribution has added, and Machine the
	// versioned name of the type.
	QEMU    string `json:"qemu"`
	Machine string `json:"machine"`
	// Line is the command line, without what may differ.
	Line []string `json:"line"`
	// Files tells the kernel, the initramfs and disks that are only read from
	// others of the same name.
	Files map[string]string `json:"files"`
	// Sizes are those of disks that are written to, in bytes.
	Sizes map[string]int64 `json:"sizes,omitempty"`
	// Host is the processor that the guest has seen, where that is the host's own.
	Host string `json:"host,omitempty"`
	// Agent is the version of what answers in the guest.
	Agent string `json:"agent"`
	// Diskless says that the guest knows nothing of its disks yet.
	Diskless bool `json:"diskless,omitempty"`
}

// WithoutDisks returns the shape of all machines that differ in nothing but what is on
// their disks, and how large those are: see Plan.LateDisks.
func (sh *Shape) WithoutDisks() *Shape {
	other := *sh
	other.Files, other.Sizes, other.Diskless = map[string]string{}, nil, true
	for name, file := range sh.Files {
		if name == kernelFile || name == initrdFile {
			other.Files[name] = file
		}
	}
	return &other
}

// What Shape.Files has besides disks.
const (
	kernelFile = "kernel"
	initrdFile = "initrd"
)

// Shape returns the shape of a machine of q's. Host returns where on this host a file
// of the spec is. Agent is for the caller, who knows what is in the guest.
//
// Errors: as Args; those of the file system if a file is not there.
func (q *QEMU) Shape(s *Spec, host func(path string) string, agent string) (*Shape, error) {
	sh := &Shape{
		Version: shapeVersion, QEMU: strings.TrimSpace(q.Version.String() + " " + q.Version.Package), Machine: q.Machines[s.Type],
		Files: map[string]string{}, Sizes: map[string]int64{}, Agent: agent,
	}
	plain := *s
	plain.UUID, plain.Paused, plain.Incoming = "", false, false
	if plain.TSC != 0 {
		plain.TSC = 1 // another measurement of the same
	}
	var err error
	note := func(name, path string) string {
		if path != "" && err == nil {
			sh.Files[name], err = stamp(host(path))
		}
		return name
	}
	plain.Kernel, plain.Initrd = named(s.Kernel, kernelFile, note), named(s.Initrd, initrdFile, note)
	plain.Disks, plain.Shares = slices.Clone(s.Disks), slices.Clone(s.Shares)
	for i := range plain.Disks {
		if e := sh.disk(&plain.Disks[i], host, note); err == nil {
			err = e
		}
	}
	for i := range plain.Shares {
		plain.Shares[i].Path = "share"
	}
	if err != nil {
		return nil, err
	}
	if s.Accel == KVM {
		sh.Host = hostCPU()
	}
	line, err := q.Args(&plain)
	sh.Line = withoutPlaces(line)
	return sh, err
}

// macOption is a card's address, which the guest is told again.
var macOption = regexp.MustCompile(`,mac=[0-9a-f:]+`)

// withoutPlaces leaves out where cards of the network lead to: a guest sees no more
// of that than that there is a card.
func withoutPlaces(line []string) []string {
	var out []string
	for i := 0; i < len(line); i++ {
		if line[i] == "-netdev" {
			i++
			continue
		}
		out = append(out, macOption.ReplaceAllString(line[i], ""))
	}
	return out
}

// named returns the name that stands for a path, if there is one.
func named(path, name string, note func(name, path string) string) string {
	if path == "" {
		return ""
	}
	return note(name, path)
}

// disk notes what counts of a disk, and gives it a name for a path.
func (sh *Shape) disk(d *Disk, host func(string) string, note func(name, path string) string) error {
	if d.Base != nil {
		base := *d.Base
		base.Path = note("base-"+d.Name, base.Path)
		d.Base = &base
	}
	if d.ReadOnly {
		d.Path = note("disk-"+d.Name, d.Path)
		return nil
	}
	info, err := os.Stat(host(d.Path))
	if err != nil {
		return err
	}
	// A layer's own size says nothing: its base and its header do.
	if d.Format == "raw" {
		sh.Sizes[d.Name] = info.Size()
	}
	d.Path = "disk-" + d.Name
	return nil
}

// stamp tells a file from others that had its place, and from itself before it
// was written to.
func stamp(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d", path, info.Size(), info.ModTime().UnixNano()), nil
}

// hostCPU describes the host's processor, as far as a guest sees it.
func hostCPU() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(data), "\n\n")
	h := sha256.New()
	for line := range strings.Lines(first) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags":
			fmt.Fprintln(h, strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Key names the shape: equal shapes have the same.
func (sh *Shape) Key() string {
	data, err := json.Marshal(sh)
	if err != nil {
		panic("caisson: bug: a shape is no JSON: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// Differs says what is first to keep a state of another shape from going on in
// this one. Empty: nothing does.
func (sh *Shape) Differs(other *Shape) string {
	switch {
	case other.Version != sh.Version:
		return fmt.Sprintf("it is of version %d, and %d is known here", other.Version, sh.Version)
	case other.QEMU != sh.QEMU:
		return fmt.Sprintf("it was made by QEMU %q, and here is %q", other.QEMU, sh.QEMU)
	case other.Machine != sh.Machine:
		return fmt.Sprintf("it is of a machine %q, and this one is %q", other.Machine, sh.Machine)
	case other.Agent != sh.Agent:
		return "another version of the agent is in it"
	case other.Host != sh.Host:
		return "it was made on another processor"
	case other.Diskless != sh.Diskless:
		return "it is of a guest at another time of its boot"
	}
	for _, name := range slices.Sorted(maps.Keys(sh.Files)) {
		if other.Files[name] != sh.Files[name] {
			return "its " + name + " is another, or was changed"
		}
	}
	if !maps.Equal(sh.Sizes, other.Sizes) {
		return "its disks are of another size"
	}
	if !slices.Equal(sh.Line, other.Line) {
		return "its machine is another"
	}
	return ""
}

// fullSpeed is more than any disk takes: QEMU's own bound is for networks.
const fullSpeed = int64(1) << 40

// stateName is what files of states are called where QEMU is handed them.
const stateName = "state"

// Save writes a machine's state to a file, at its place, whole. The machine's
// processors stand still from then on, until qmp.Client.Continue. What it has on
// disks is not part of it.
//
// Errors: as qmp.Client.AwaitMigration; ErrUnsupported while the guest has a share
// mounted.
func Save(ctx context.Context, c *qmp.Client, f *os.File) error {
	if err := c.Pause(ctx); err != nil {
		return err
	}
	if err := c.SetMigration(ctx, map[string]any{"max-bandwidth": fullSpeed}); err != nil {
		return err
	}
	if err := c.SendFile(ctx, stateName, f); err != nil {
		return err
	}
	if err := c.Migrate(ctx, "fd:"+stateName); err != nil {
		if strings.Contains(err.Error(), "VirtFS") {
			return &caisson.Error{Item: "machine", Kind: caisson.ErrUnsupported, Err: fmt.Errorf("folders of the host are mounted in it: %w", err)}
		}
		return err
	}
	return c.AwaitMigration(ctx)
}

// Load has a machine go on from a state: one with Spec.Incoming, of the state's
// shape. Its processors stand still until qmp.Client.Continue.
//
// Errors: as qmp.Client.AwaitMigration. The machine is then of no use.
func Load(ctx context.Context, c *qmp.Client, f *os.File) error {
	if err := c.SendFile(ctx, stateName, f); err != nil {
		return err
	}
	if err := c.Incoming(ctx, "fd:"+stateName); err != nil {
		return err
	}
	return c.AwaitMigration(ctx)
}
