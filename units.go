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

// ParseBytes reads the text form of a size. A size with a unit may have a
// fraction, "1.5g", and is rounded down to whole bytes. What is negative, empty,
// not a number, or larger than fits is refused.
func ParseBytes(s string) (Bytes, error) {
	digits := s
	if i := strings.IndexFunc(s, func(c rune) bool { return (c < '0' || c > '9') && c != '.' }); i >= 0 {
		digits = s[:i]
	}
	unit, err := byteUnit(s, strings.TrimPrefix(s[len(digits):], " "))
	if err != nil {
		return 0, err
	}
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" || point && (unit == 1 || fraction == "" || strings.Contains(fraction, ".")) {
		return 0, fmt.Errorf("size %q: use a number with a unit such as 64m or 1g, or a number of bytes", s)
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || Bytes(n) > (math.MaxInt64-unit)/unit {
		return 0, fmt.Errorf("size %q: too large", s)
	}
	total := Bytes(n) * unit
	if point {
		part, _ := strconv.ParseFloat("0."+fraction, 64) // digits only, so it is a number
		total += Bytes(part * float64(unit))
	}
	return total, nil
}

// byteUnit returns the size of a suffix of the size s.
func byteUnit(s, suffix string) (Bytes, error) {
	suffix = strings.ToLower(suffix)
	if suffix == "b" || suffix == "" && !strings.HasSuffix(s, " ") {
		return 1, nil
	}
	for _, u := range byteUnits {
		if suffix == u.suffix || suffix == u.suffix+"b" || suffix == u.suffix+"ib" {
			return u.size, nil
		}
	}
	if strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("size %q: negative", s)
	}
	return 0, fmt.Errorf("size %q: unknown unit %q, use k, m, g or t", s, suffix)
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

// ParseCPUs reads the text form, which is rounded to the nearest thousandth of
// a core. More than a million cores are refused.
func ParseCPUs(s string) (CPUs, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.Trim(s, "-.0123456789") != "" {
		return 0, fmt.Errorf("cpus %q: not a number of cores such as 0.5 or 2", s)
	}
	if n < 0 || n > 1e6 {
		return 0, fmt.Errorf("cpus %q: out of range, use 0.001 to 1000000, or 0 for no limit", s)
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
	if s != "" && strings.Trim(s, "0123456789") == "" {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("duration %q: too long, the most is %d seconds", s, uint32(math.MaxUint32))
		}
		return Duration(time.Duration(n) * time.Second), nil
	}
	d, err := time.ParseDuration(s)
	if d < 0 {
		return 0, fmt.Errorf("duration %q: negative", s)
	}
	if err != nil || s[0] == '+' || s[0] == '-' {
		return 0, fmt.Errorf("duration %q: use a number with a unit such as 250ms, 30s, 10m or 1h30m", s)
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
