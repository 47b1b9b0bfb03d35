package selftest

import (
	"encoding/base64"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/caissonrun/caisson/engine/enginetest/inside/act"
)

// Whatever program a value is in front of, its forms are recognised.
func TestEncodings(t *testing.T) {
	value := newSecret() + `"/+`
	for _, before := range []string{"", "u", "us", "user", "user:"} {
		for _, coding := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
			text, found := coding.EncodeToString([]byte(before+value+":more")), false
			for _, form := range encodings(value) {
				found = found || strings.Contains(text, form)
			}
			if !found {
				t.Errorf("%q has the value behind %q, and it is not found", text, before)
			}
		}
	}
}

// What a process knows is found in its memory, and what nobody knows is not.
func TestMemoryHolds(t *testing.T) {
	value := []byte(newSecret())
	masked := act.Masked(string(value))
	if holds, err := memoryHolds(os.Getpid(), masked); !holds || err != nil {
		t.Errorf("memoryHolds = %v, %v for a value that is there", holds, err)
	}
	runtime.KeepAlive(value)
	// It is made as its mask would be, so it never was anywhere.
	if holds, err := memoryHolds(os.Getpid(), strings.Repeat("a7", 40)); holds || err != nil {
		t.Errorf("memoryHolds = %v, %v for a value that is nowhere", holds, err)
	}
}
