package caisson_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
)

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]caisson.Bytes{
		"0": 0, "1": 1, "1048576": caisson.MiB, "64m": 64 * caisson.MiB, "64M": 64 * caisson.MiB, "64mb": 64 * caisson.MiB,
		"64 MiB": 64 * caisson.MiB, "1k": caisson.KiB, "1g": caisson.GiB, "2T": 2 * caisson.TiB, "5b": 5, "1.5g": 1536 * caisson.MiB,
		"0.3k": 307, "9007199254740993": 9007199254740993, "9223372036854775806": math.MaxInt64 - 1, "8191t": 8191 * caisson.TiB,
	} {
		if got, err := caisson.ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "x", "-1", "-1m", "+1", "1.5", "1.5b", "1.k", ".5k", "1..5k", "1.2.3k", "1e3", "0x10", "1_000", "inf", "nan", "1ib", "1kk",
		"1 000", " 1", "1 ", "64x", "9223372036854775808", "8388608t", "99999999999999999999t", "٣",
	} {
		if got, err := caisson.ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		}
	}
}

func TestBytesString(t *testing.T) {
	for size, want := range map[caisson.Bytes]string{
		0: "0", 1: "1", 1023: "1023", 1024: "1k", 1536: "1536", 64 * caisson.MiB: "64m", caisson.GiB: "1g", 3 * caisson.TiB: "3t",
		-caisson.MiB: "-1m",
	} {
		if got := size.String(); got != want {
			t.Errorf("Bytes(%d).String() = %q, want %q", int64(size), got, want)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	f.Add("1.5g")
	f.Add("64 MiB")
	f.Fuzz(func(t *testing.T, text string) {
		size, err := caisson.ParseBytes(text)
		if err != nil {
			return
		}
		if size < 0 {
			t.Errorf("ParseBytes(%q) = %d, negative", text, size)
		}
		if again, err := caisson.ParseBytes(size.String()); err != nil || again != size {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", size.String(), again, err, size)
		}
	})
}

func TestParseCPUs(t *testing.T) {
	for text, want := range map[string]caisson.CPUs{
		"0": 0, "1": 1000, "0.5": 500, ".5": 500, "2.": 2000, "0.001": 1, "1.2345": 1235, "1000000": 1e9,
	} {
		if got, err := caisson.ParseCPUs(text); err != nil || got != want {
			t.Errorf("ParseCPUs(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "1e3", "0x1", "0x1p3", "inf", "NaN", "0.0001", "1000001", "1_0", " 1", "1,5", "1-1"} {
		if got, err := caisson.ParseCPUs(text); err == nil {
			t.Errorf("ParseCPUs(%q) = %d, want an error", text, got)
		}
	}
	if got := caisson.CPUs(500).String(); got != "0.5" {
		t.Errorf("CPUs(500).String() = %q, want 0.5", got)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "30": 30 * time.Second, "250ms": 250 * time.Millisecond, "1h30m": 90 * time.Minute, "1.5s": 1500 * time.Millisecond,
		"4294967295": 4294967295 * time.Second, "0s": 0, "10µs": 10 * time.Microsecond,
	} {
		if got, err := caisson.ParseDuration(text); err != nil || got.Std() != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "-5", "-5s", "+5s", "5 s", "1d", "1.5", "4294967296", "9999999h", " 5s", "1s ", "5 minutes"} {
		if got, err := caisson.ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
}

func TestUnitsInJSON(t *testing.T) {
	in := caisson.Limits{CPUs: 500, Memory: 64 * caisson.MiB, PIDs: 5}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"cpus":"0.5","memory":"64m","pids":5}`; string(data) != want {
		t.Errorf("Marshal = %s, want %s", data, want)
	}
	var out caisson.Limits
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("Unmarshal = %+v, %v, want %+v", out, err, in)
	}
	if err := json.Unmarshal([]byte(`{"memory": "64x"}`), &out); err == nil {
		t.Error("Unmarshal of a wrong size = nil, want an error")
	}
	var d caisson.Duration
	if err := json.Unmarshal([]byte(`"1m30s"`), &d); err != nil || d.Std() != 90*time.Second {
		t.Errorf("Unmarshal = %v, %v, want 1m30s", d, err)
	}
}
