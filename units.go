package caisson

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size in bytes. Zero means that no limit is set.
//
// Its text form is a number with an optional suffix. All suffixes count in
// powers of 1024, in any case: k, m, g, t, each also with a trailing b or ib
// ("64m", "64MB" and "64MiB" are the same), as in Docker's limits.
type Bytes int64

// The binary sizes.
const (
	KiB Bytes = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

var byteUnits = []struct {
	suffix string
	size   Bytes
}{{"t", TiB}, {"g", GiB}, {"m", MiB}, {"k", KiB}}

// ParseBytes reads the text form of a size. It refuses what is negative,
// empty, not a number, or larger than fits.
func ParseBytes(s string) (Bytes, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	unit := Bytes(1)
	switch suffix := strings.TrimSpace(text[len(digits):]); suffix {
	case "", "b":
	default:
		found := false
		for _, u := range byteUnits {
			if suffix == u.suffix || suffix == u.suffix+"b" || suffix == u.suffix+"ib" {
				unit, found = u.size, true
			}
		}
		if !found {
			return 0, fmt.Errorf("size %q: unknown unit %q, use k, m, g or t", s, suffix)
		}
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsInf(n, 0) || math.IsNaN(n) || strings.ContainsAny(digits, "xX_pP") {
		return 0, fmt.Errorf("size %q: not a number with an optional unit such as 64m or 1g", s)
	}
	if n < 0 {
		return 0, fmt.Errorf("size %q: negative", s)
	}
	total := n * float64(unit)
	if total >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q: too large", s)
	}
	return Bytes(total), nil
}

// String returns the shortest exact text form, such as "64m".
func (b Bytes) String() string {
	for _, u := range byteUnits {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBytes(string(text))
	return err
}

// CPUs is an amount of processor time per time in thousandths of a core:
// 500 is half a core. Zero means that no limit is set. Its text form counts
// cores: "0.5", "2".
type CPUs int64

// ParseCPUs reads the text form. The finest step is a thousandth of a core.
func ParseCPUs(s string) (CPUs, error) {
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || math.IsInf(n, 0) || math.IsNaN(n) || strings.ContainsAny(s, "xX_pPeE") {
		return 0, fmt.Errorf("cpus %q: not a number of cores such as 0.5 or 2", s)
	}
	if n < 0 || n > 1e6 {
		return 0, fmt.Errorf("cpus %q: out of range, use more than 0", s)
	}
	milli := math.Round(n * 1000)
	if milli == 0 && n > 0 {
		return 0, fmt.Errorf("cpus %q: too small, the least is 0.001", s)
	}
	return CPUs(milli), nil
}

// String returns the number of cores, such as "0.5".
func (c CPUs) String() string {
	return strconv.FormatFloat(float64(c)/1000, 'f', -1, 64)
}

// MarshalText implements encoding.TextMarshaler.
func (c CPUs) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *CPUs) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCPUs(string(text))
	return err
}

// Duration is a time.Duration whose text form is Go's ("1h30m", "250ms"), or a
// plain number of seconds.
type Duration time.Duration

// ParseDuration reads the text form and refuses negative durations.
func ParseDuration(s string) (Duration, error) {
	text := strings.TrimSpace(s)
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return Duration(time.Duration(n) * time.Second), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("duration %q: use a number with a unit such as 250ms, 30s, 10m or 1h30m", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("duration %q: negative", s)
	}
	return Duration(d), nil
}

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns Go's text form, such as "1m30s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}
