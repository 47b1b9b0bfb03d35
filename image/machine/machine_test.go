//go:build unix

package machine_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image/machine"
)

// full says everything that can be said.
const full = `{"version": 1, "uuid": "52bab607-10f1-4049-a0f8-ee4725cb715b", "chipset": "pc-i440fx-2.8", "cpu": "host", "flags": [],
	"threads": 2, "cores": 3, "sockets": 1, "memory": 1024, "usb": "nec-usb-xhci", "network": "e1000", "mac": "aa:54:1a:30:5c:de",
	"storage": "virtio-blk-pci", "graphics": "qxl-vga", "vgaMemory": 16, "graphicsRam": 64, "graphicsVRam": 32,
	"sound": "hda-duplex/intel-hda", "keyboard": "usb-kbd", "keyboardLayout": "en-us", "mouse": "usb-mouse", "tablet": "usb-tablet"}`

func fullMachine() *machine.Machine {
	return &machine.Machine{
		Version: 1, UUID: "52bab607-10f1-4049-a0f8-ee4725cb715b", Chipset: "pc-i440fx-2.8", CPU: "host", Threads: 2, Cores: 3, Sockets: 1,
		Memory: 1024, USB: "nec-usb-xhci", Network: "e1000", MAC: "aa:54:1a:30:5c:de", Storage: "virtio-blk-pci", Graphics: "qxl-vga",
		VGAMemory: 16, GraphicsRAM: 64, GraphicsVRAM: 32, Sound: "hda-duplex/intel-hda", Keyboard: "usb-kbd", KeyboardLayout: "en-us",
		Mouse: "usb-mouse", Tablet: "usb-tablet",
	}
}

func TestParseMachine(t *testing.T) {
	old := machine.Machine{
		Version: 1, UUID: "52bab607-10f1-4049-a0f8-ee4725cb715b", Chipset: "pc-i440fx-2.8", CPU: "host", Threads: 1, USB: "nec-usb-xhci",
		Network: "e1000", MAC: "aa:54:1a:30:5c:de", Storage: "virtio-blk-pci", Graphics: "vmware-svga", Sound: "none", Keyboard: "usb-kbd",
		KeyboardLayout: "en-us", Mouse: "usb-mouse", Tablet: "none",
	}
	oldest := `{"uuid": "52bab607-10f1-4049-a0f8-ee4725cb715b", "network": {"device": "rtl8139", "mac": "aa:54:1a:30:5c:de"}, "keyboard": {"layout": "en-us"}`
	more := old
	more.Memory, more.Threads, more.Cores, more.Sockets, more.Sound = 512, 2, 3, 4, "hda-output/ich9-intel-hda"
	card := old
	card.Sound = "AC97"
	for _, test := range []struct {
		name, text string
		want       *machine.Machine
	}{
		{"Full", full, fullMachine()},
		{"Least", `{"version": 1}`, &machine.Machine{Version: 1}},
		{"Version0", oldest + `}`, &old},
		{"Version0Said", oldest + `, "version": 0}`, &old},
		{"Version0Full", oldest + `, "memory": 512, "cpu": {"threads": 2, "cores": 3, "sockets": 4}, "sound": {"device": "hda-output", "controller": "ich9-intel-hda"}}`, &more},
		{"Version0Card", oldest + `, "sound": {"device": "AC97", "controller": "pci"}}`, &card},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := machine.ParseMachine([]byte(test.text))
			if err != nil || !cmp.Equal(got, test.want) {
				t.Errorf("ParseMachine = %v, %s", err, cmp.Diff(test.want, got))
			}
		})
	}
}

func TestParseMachineErrors(t *testing.T) {
	for _, test := range []struct {
		name, text, why string
	}{
		{"Empty", ``, "object"},
		{"List", `[]`, "object"},
		{"Cut", `{"version": 1`, "JSON"},
		{"Behind", `{"version": 1} {}`, "follows"},
		{"Twice", `{"version": 1, "memory": 1, "memory": 2}`, "twice"},
		{"Unknown", `{"version": 1, "disk": "x"}`, `"disk" is not known`},
		{"Spelling", `{"version": 1, "Memory": 1}`, `"Memory" is not known`},
		{"Type", `{"version": 1, "memory": "1"}`, "wrong type"},
		{"Null", `{"version": 1, "memory": null}`, "wrong type"},
		{"Fraction", `{"version": 1, "memory": 1.5}`, "wrong type"},
		{"Zero", `{"version": 1, "cores": 0}`, "want 1 to 255"},
		{"Negative", `{"version": 1, "cores": -1}`, "want 1 to 255"},
		{"Many", `{"version": 1, "cores": 256}`, "want 1 to 255"},
		{"Huge", `{"version": 1, "memory": 99999999999999999999}`, "wrong type"},
		{"Argument", `{"version": 1, "network": "e1000,netdev=x"}`, "not permitted"},
		{"Line", `{"version": 1, "mac": "aa:54:1a:30:5c:de\n"}`, "not permitted"},
		{"Multicast", `{"version": 1, "mac": "ab:54:1a:30:5c:de"}`, "not permitted"},
		{"Chipset", `{"version": 1, "chipset": "pc-i440fx-2.8,kernel=/etc/passwd"}`, "not permitted"},
		{"EmptyWord", `{"version": 1, "cpu": ""}`, "not permitted"},
		{"Flags", `{"version": 1, "flags": ["+vmx"]}`, "flags"},
		{"FlagsNull", `{"version": 1, "flags": null}`, "flags"},
		{"VersionText", `{"version": "1"}`, "version"},
		{"VersionNull", `{"version": null}`, "version"},
		{"VersionNegative", `{"version": -1}`, "version"},
		{"Version0Unknown", `{"disk": {}}`, `"disk" is not known`},
		{"Version0UnknownDeep", `{"cpu": {"model": "x"}}`, `"cpu.model" is not known`},
		{"Version0Twice", `{"cpu": {"cores": 1, "cores": 2}}`, "twice"},
		{"Version0Sound", `{"sound": {"device": "beep", "controller": "pci"}}`, "sound"},
		{"Version0Object", `{"network": 5}`, "network"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if m, err := machine.ParseMachine([]byte(test.text)); !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), test.why) {
				t.Errorf("ParseMachine = %+v, %v, want ErrInvalid with %q", m, err, test.why)
			}
		})
	}
	if _, err := machine.ParseMachine([]byte(`{"version": 2}`)); !errors.Is(err, caisson.ErrUnsupported) {
		t.Errorf("ParseMachine of version 2 = %v, want ErrUnsupported", err)
	}
}

// FuzzParseMachine reads back what it accepts.
func FuzzParseMachine(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"uuid":"","cpu":{"threads":1},"sound":{"device":"AC97","controller":"pci"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := machine.ParseMachine(data)
		if err != nil {
			if kind := caisson.KindOf(err); kind != caisson.ErrInvalid && kind != caisson.ErrUnsupported {
				t.Errorf("%q: %v has no kind", data, err)
			}
			return
		}
		if err := m.Check(); err != nil {
			t.Errorf("%q: Check = %v", data, err)
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := machine.ParseMachine(text); err != nil || !cmp.Equal(again, m) {
			t.Errorf("%s: %v, %s", text, err, cmp.Diff(m, again))
		}
	})
}
