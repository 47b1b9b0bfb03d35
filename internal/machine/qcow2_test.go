package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson"
)

// layer makes an empty image.
func layer(t *testing.T, size caisson.Bytes) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "layer.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := WriteLayer(f, size); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func TestCheckQcow2(t *testing.T) {
	file := layer(t, 10<<30)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return b
	}
	put32 := func(at int, v uint32) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint32(b[at:], v) } }
	put64 := func(at int, v uint64) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint64(b[at:], v) } }
	named := func(b []byte) { put64(8, 200)(b); put32(16, 8)(b); copy(b[200:], "disk.img") }
	tests := []struct {
		name string
		data []byte
		want ImageHeader
		err  string
	}{
		{"OK", good, ImageHeader{Size: 10 << 30}, ""},
		{"Backing", with(named), ImageHeader{Size: 10 << 30, Backing: "disk.img"}, ""},
		{"Version2", with(put32(4, 2)), ImageHeader{Size: 10 << 30}, ""},
		{"Version9", with(put32(4, 9)), ImageHeader{}, "version 9"},
		{"Empty", nil, ImageHeader{}, "truncated"},
		{"Truncated", good[:50], ImageHeader{}, "truncated"},
		{"Other", make([]byte, 512), ImageHeader{}, "it is none"},
		{"DataFile", with(put64(72, qcowData)), ImageHeader{}, "another file"},
		{"Dirty", with(put64(72, qcowDirty)), ImageHeader{}, "not closed"},
		{"Unknown", with(put64(72, 1<<40)), ImageHeader{}, "nobody here knows"},
		{"Encrypted", with(put32(32, 1)), ImageHeader{}, "encrypted"},
		{"Huge", with(put64(24, 1<<63)), ImageHeader{}, "larger than"},
		{"LongName", with(func(b []byte) { put64(8, 200)(b); put32(16, 1<<30)(b) }), ImageHeader{}, "out of place"},
		{"NameOutside", with(func(b []byte) { put64(8, 1<<20)(b); put32(16, 8)(b) }), ImageHeader{}, "truncated"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := CheckQcow2(bytes.NewReader(tt.data), 20<<30)
			if got != tt.want || !matches(err, tt.err) || err != nil && !errors.Is(err, caisson.ErrInvalid) {
				t.Errorf("CheckQcow2() = %+v, %v, want %+v, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestWriteLayerRefuses(t *testing.T) {
	for _, size := range []caisson.Bytes{-1, 0, 100, 1 << 60} {
		if err := WriteLayer(nil, size); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("WriteLayer(%d) = %v, want ErrInvalid", size, err)
		}
	}
}

func FuzzCheckQcow2(f *testing.F) {
	f.Add([]byte(qcowMagic + "\x00\x00\x00\x03"))
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := CheckQcow2(bytes.NewReader(data), 1<<30)
		if err == nil && (i.Size < 0 || i.Size > 1<<30 || len(i.Backing) > 1023) {
			t.Errorf("CheckQcow2() = %+v", i)
		}
	})
}
