package act

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"syscall"
	"testing"
)

func TestSplit(t *testing.T) {
	args := []string{"say", "a", ";", ";", "exit", "3"}
	want := [][]string{{"say", "a"}, {"exit", "3"}}
	if got := split(args); !reflect.DeepEqual(got, want) {
		t.Errorf("split(%q) = %q, want %q", args, got, want)
	}
	if got := split(nil); got != nil {
		t.Errorf("split(nil) = %q", got)
	}
}

func TestPattern(t *testing.T) {
	whole, err := io.ReadAll(io.LimitReader(Pattern(7), 10000))
	if err != nil {
		t.Fatal(err)
	}
	// In pieces it is the same.
	pieces, r := []byte(nil), Pattern(7)
	for size := 1; len(pieces) < len(whole); size++ {
		piece := make([]byte, min(size, len(whole)-len(pieces)))
		if _, err := io.ReadFull(r, piece); err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, piece...)
	}
	if !bytes.Equal(whole, pieces) {
		t.Errorf("a pattern depends on how it is read")
	}
	seen := make(map[byte]bool)
	for _, b := range whole {
		seen[b] = true
	}
	if len(seen) != 256 {
		t.Errorf("a pattern has %d different bytes, want all", len(seen))
	}
	other, _ := io.ReadAll(io.LimitReader(Pattern(8), 10000))
	if bytes.Equal(whole, other) {
		t.Errorf("two seeds give the same pattern")
	}
}

func TestErrorName(t *testing.T) {
	for want, err := range map[string]error{
		"ok": nil, "EPERM": fmt.Errorf("x: %w", syscall.EPERM), "text": errors.New("text"),
	} {
		if got := ErrorName(err); got != want {
			t.Errorf("ErrorName(%v) = %q, want %q", err, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "12": 12, "3k": 3 << 10, "4m": 4 << 20, "5g": 5 << 30} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	if _, err := parseSize("m"); err == nil {
		t.Errorf("parseSize of no number worked")
	}
}
