//go:build unix

// Package machine reads and writes images of virtual machines: disks in
// QEMU's qcow2 format or raw, and the archives that taskcluster-worker had, a
// tar compressed by zstd of a raw disk, a layer over it, and a description of
// the machine. All of it is hostile: it is bounded while it is unpacked, and
// nothing in it is given to a program to look at.
package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// Version is the version of descriptions that are written.
const Version = 1

// A Machine is what an image says of the machine that it wants. Zero values
// are what it does not say. Every value is one of a list or of a strict form,
// so that it can be an argument of QEMU's; whether QEMU has it is not said.
type Machine struct {
	Version        int      `json:"version"` // 1
	UUID           string   `json:"uuid,omitempty"`
	Chipset        string   `json:"chipset,omitempty"` // pc, q35, microvm, or QEMU's versioned names of them
	CPU            string   `json:"cpu,omitempty"`     // host or max
	Flags          []string `json:"flags,omitempty"`   // of the CPU; the format has none so far
	Threads        int      `json:"threads,omitempty"` // of a core, 1 to 255
	Cores          int      `json:"cores,omitempty"`   // of a socket, 1 to 255
	Sockets        int      `json:"sockets,omitempty"` // 1 to 255
	Memory         int      `json:"memory,omitempty"`  // MiB
	USB            string   `json:"usb,omitempty"`     // the controller
	Network        string   `json:"network,omitempty"` // the network card
	MAC            string   `json:"mac,omitempty"`     // a local address of one machine
	Storage        string   `json:"storage,omitempty"` // how the disk is attached
	Graphics       string   `json:"graphics,omitempty"`
	VGAMemory      int      `json:"vgaMemory,omitempty"`    // MiB
	GraphicsRAM    int      `json:"graphicsRam,omitempty"`  // MiB, of qxl-vga
	GraphicsVRAM   int      `json:"graphicsVRam,omitempty"` // MiB, of qxl-vga
	Sound          string   `json:"sound,omitempty"`        // DEVICE, or DEVICE/CONTROLLER
	Keyboard       string   `json:"keyboard,omitempty"`
	KeyboardLayout string   `json:"keyboardLayout,omitempty"`
	Mouse          string   `json:"mouse,omitempty"`
	Tablet         string   `json:"tablet,omitempty"`
}

const (
	maxDescription = 1 << 20 // bytes of machine.json
	maxMemory      = 1 << 24 // MiB: 16 TiB
	maxVideo       = 1 << 12 // MiB
	maxCount       = 255
)

// field is a key of a description.
type field struct {
	key   string
	into  func(*Machine) any // a *string or *int
	words []string           // permitted, if it is a text
	form  string             // another way to say it: a regular expression of the whole text
	most  int                // if it is a number; the least is 1
}

// fields is the table of a description's keys. Names of devices are those of
// taskcluster-worker, and what Caisson's own images have.
func fields() []field {
	const digits = `[0-9]{1,3}`
	return []field{
		{key: "uuid", into: func(m *Machine) any { return &m.UUID }, form: `[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`},
		{key: "chipset", into: func(m *Machine) any { return &m.Chipset }, words: []string{"pc", "q35", "microvm"}, form: `pc-(i440fx|q35)-` + digits + `\.` + digits},
		{key: "cpu", into: func(m *Machine) any { return &m.CPU }, words: []string{"host", "max"}},
		{key: "threads", into: func(m *Machine) any { return &m.Threads }, most: maxCount},
		{key: "cores", into: func(m *Machine) any { return &m.Cores }, most: maxCount},
		{key: "sockets", into: func(m *Machine) any { return &m.Sockets }, most: maxCount},
		{key: "memory", into: func(m *Machine) any { return &m.Memory }, most: maxMemory},
		{key: "usb", into: func(m *Machine) any { return &m.USB }, words: []string{"piix3-usb-uhci", "piix4-usb-uhci", "nec-usb-xhci", "qemu-xhci"}},
		{key: "network", into: func(m *Machine) any { return &m.Network }, words: []string{"rtl8139", "e1000", "virtio-net-pci"}},
		{key: "mac", into: func(m *Machine) any { return &m.MAC }, form: `[0-9a-f][26ae](:[0-9a-f]{2}){5}`},
		{key: "storage", into: func(m *Machine) any { return &m.Storage }, words: []string{"virtio-blk-pci"}},
		{key: "graphics", into: func(m *Machine) any { return &m.Graphics }, words: []string{"VGA", "vmware-svga", "qxl-vga", "virtio-vga"}},
		{key: "vgaMemory", into: func(m *Machine) any { return &m.VGAMemory }, most: maxVideo},
		{key: "graphicsRam", into: func(m *Machine) any { return &m.GraphicsRAM }, most: maxVideo},
		{key: "graphicsVRam", into: func(m *Machine) any { return &m.GraphicsVRAM }, most: maxVideo},
		{key: "sound", into: func(m *Machine) any { return &m.Sound }, words: []string{"none", "AC97", "ES1370"}, form: `hda-(duplex|micro|output)/(intel-hda|ich9-intel-hda)`},
		{key: "keyboard", into: func(m *Machine) any { return &m.Keyboard }, words: []string{"usb-kbd", "PS/2"}},
		{key: "keyboardLayout", into: func(m *Machine) any { return &m.KeyboardLayout }, words: layouts()},
		{key: "mouse", into: func(m *Machine) any { return &m.Mouse }, words: []string{"usb-mouse", "PS/2"}},
		{key: "tablet", into: func(m *Machine) any { return &m.Tablet }, words: []string{"usb-tablet", "none"}},
	}
}

// layouts are the keyboards that QEMU has maps of.
func layouts() []string {
	return strings.Fields("ar da de de-ch en-gb en-us es et fi fo fr fr-be fr-ca fr-ch hr hu is it ja lt lv mk nl nl-be no pl pt pt-br ru sl sv th tr")
}

// ParseMachine reads a description, and makes version 1 of older ones. A key
// that is not known, one that stands there twice, and a value that is not
// permitted are refused.
//
// Errors: ErrInvalid; ErrUnsupported for a newer version.
func ParseMachine(data []byte) (*Machine, error) {
	m, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", descriptionName, err)
	}
	return m, nil
}

func parse(data []byte) (*Machine, error) {
	if len(data) > maxDescription {
		return nil, invalid("more than %d bytes", maxDescription)
	}
	keys, err := object(data)
	if err != nil {
		return nil, err
	}
	version := 0 // which had no version in it
	if raw, ok := keys["version"]; ok {
		if err := json.Unmarshal(raw, &version); err != nil || version < 0 || string(raw) == "null" {
			return nil, invalid("version %s is no number of one", shorten(string(raw)))
		}
		delete(keys, "version")
	}
	switch version {
	case 0:
		return migrate(keys)
	case Version:
	default:
		return nil, &caisson.Error{Kind: caisson.ErrUnsupported, Err: fmt.Errorf("version %d, want at most %d", version, Version)}
	}
	m := &Machine{Version: Version}
	if raw, ok := keys["flags"]; ok {
		if json.Unmarshal(raw, &m.Flags) != nil || m.Flags == nil || len(m.Flags) > 0 {
			return nil, invalid("flags: want an empty list: no flags are known")
		}
		m.Flags = nil
		delete(keys, "flags")
	}
	table := fields()
	for i := range table {
		f := &table[i]
		if raw, ok := keys[f.key]; ok {
			if err := f.set(m, raw); err != nil {
				return nil, err
			}
			delete(keys, f.key)
		}
	}
	return m, noMore("", keys)
}

// noMore refuses keys that nobody has asked for.
func noMore(in string, keys map[string]json.RawMessage) error {
	var names []string
	for key := range keys {
		names = append(names, in+shorten(key))
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return invalid("key %q is not known", names[0])
}

// set takes the value of a key that is there.
func (f *field) set(m *Machine, raw json.RawMessage) error {
	into := f.into(m)
	if json.Unmarshal(raw, into) != nil || string(raw) == "null" {
		return invalid("%s: %s is of the wrong type", f.key, shorten(string(raw)))
	}
	return f.check(into)
}

func (f *field) check(value any) error {
	switch v := value.(type) {
	case *int:
		if *v < 1 || *v > f.most {
			return invalid("%s: %d, want 1 to %d", f.key, *v, f.most)
		}
	case *string:
		if slices.Contains(f.words, *v) || f.form != "" && regexp.MustCompile(`\A(?:`+f.form+`)\z`).MatchString(*v) {
			return nil
		}
		return invalid("%s: %q is not permitted", f.key, shorten(*v))
	}
	return nil
}

// Check is whether the description could be read back.
//
// Errors: ErrInvalid.
func (m *Machine) Check() error {
	if m.Version != Version || len(m.Flags) > 0 {
		return invalid("%s: want version %d without flags", descriptionName, Version)
	}
	table := fields()
	for i := range table {
		value := table[i].into(m)
		if text, ok := value.(*string); ok && *text == "" {
			continue
		}
		if number, ok := value.(*int); ok && *number == 0 {
			continue
		}
		if err := table[i].check(value); err != nil {
			return fmt.Errorf("%s: %w", descriptionName, err)
		}
	}
	return nil
}

// Devices of version 0, which said little and meant these.
const (
	oldChipset  = "pc-i440fx-2.8"
	oldUSB      = "nec-usb-xhci"
	oldNetwork  = "e1000"
	oldStorage  = "virtio-blk-pci"
	oldGraphics = "vmware-svga"
)

// migrate reads version 0 and returns version 1. The network card is always
// e1000, whatever was said, as taskcluster-worker has it.
func migrate(keys map[string]json.RawMessage) (*Machine, error) {
	m := &Machine{
		Version: Version, Chipset: oldChipset, CPU: "host", Threads: 1, USB: oldUSB, Network: oldNetwork,
		Storage: oldStorage, Graphics: oldGraphics, Sound: "none", Keyboard: "usb-kbd", Mouse: "usb-mouse", Tablet: "none",
	}
	table := fields()
	by := func(key string) *field {
		return &table[slices.IndexFunc(table, func(f field) bool { return f.key == key })]
	}
	var sound, controller, card string
	words := func(key string, into *string) *field {
		return &field{key: key, into: func(*Machine) any { return into }, form: `[A-Za-z0-9-]{1,32}`}
	}
	for _, group := range []struct {
		key  string
		keys map[string]*field
	}{
		{"", map[string]*field{"uuid": by("uuid"), "memory": by("memory")}},
		{"cpu", map[string]*field{"threads": by("threads"), "cores": by("cores"), "sockets": by("sockets")}},
		{"network", map[string]*field{"device": words("device", &card), "mac": by("mac")}},
		{"keyboard", map[string]*field{"layout": by("keyboardLayout")}},
		{"sound", map[string]*field{"device": words("device", &sound), "controller": words("controller", &controller)}},
	} {
		inner, err := subObject(keys, group.key)
		if err != nil {
			return nil, err
		}
		for key, f := range group.keys {
			if raw, ok := inner[key]; ok {
				if err := f.set(m, raw); err != nil {
					return nil, fmt.Errorf("version 0: %s %w", group.key, err)
				}
				delete(inner, key)
			}
		}
		if group.key != "" {
			if err := noMore(group.key+".", inner); err != nil {
				return nil, err
			}
		}
	}
	if err := noMore("", keys); err != nil {
		return nil, err
	}
	if sound != "" {
		m.Sound = sound
		if controller != "pci" {
			m.Sound += "/" + controller
		}
	}
	return m, by("sound").check(&m.Sound)
}

// subObject takes the object below key out of keys, or returns keys itself. One
// that is missing is empty.
func subObject(keys map[string]json.RawMessage, key string) (map[string]json.RawMessage, error) {
	raw, ok := keys[key]
	switch {
	case key == "":
		return keys, nil
	case !ok:
		return nil, nil
	}
	delete(keys, key)
	inner, err := object(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return inner, nil
}

// object reads a JSON object. Keys are taken by their exact spelling, and none
// twice.
func object(data []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, invalid("want an object of JSON")
	}
	keys := map[string]json.RawMessage{}
	for dec.More() {
		token, err := dec.Token()
		key, ok := token.(string)
		if err != nil || !ok {
			return nil, invalid("not JSON: %w", err)
		}
		if _, twice := keys[key]; twice {
			return nil, invalid("key %q stands there twice", shorten(key))
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, invalid("not JSON: %w", err)
		}
		keys[key] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, invalid("not JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, invalid("something follows the object")
	}
	return keys, nil
}

func invalid(format string, args ...any) error {
	return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

// shorten keeps what an image says from filling a line.
func shorten(text string) string {
	if len(text) > 100 {
		return strings.ToValidUTF8(text[:100], "") + "..."
	}
	return text
}
