package folder

import "time"

// A Time is a time as manifests have it: libraries parse exactly this form, with
// no fraction, no Z and no colon in the zone.
type Time time.Time

const timeForm = "2006-01-02T15:04:05-0700"

// String returns the time in a manifest's form.
func (t Time) String() string { return time.Time(t).Format(timeForm) }

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
