package mapping_test

import (
	"errors"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/mapping"
)

// The answers are those that PHP's documentation of strtotime gives.
func TestParseTime(t *testing.T) {
	now := time.Date(2026, 3, 18, 15, 4, 5, 0, time.UTC) // a Wednesday
	tests := []struct{ text, want string }{
		{"now", "2026-03-18T15:04:05Z"},
		{"-2 days", "2026-03-16T15:04:05Z"},
		{"2 days ago", "2026-03-16T15:04:05Z"},
		{"-2 day", "2026-03-16T15:04:05Z"},
		{"-90 minutes", "2026-03-18T13:34:05Z"},
		{"-1 hour", "2026-03-18T14:04:05Z"},
		{"- 1 week", "2026-03-11T15:04:05Z"},
		{"-1 week 2 days", "2026-03-13T15:04:05Z"},
		{"-1 month", "2026-02-18T15:04:05Z"},
		{"last month", "2026-02-18T15:04:05Z"},
		{"last year", "2025-03-18T15:04:05Z"},
		{"+1 year", "2027-03-18T15:04:05Z"},
		{"1 month 1 day ago", "2026-02-17T15:04:05Z"},
		{"today", "2026-03-18T00:00:00Z"},
		{"midnight", "2026-03-18T00:00:00Z"},
		{"yesterday", "2026-03-17T00:00:00Z"},
		{"yesterday noon", "2026-03-17T12:00:00Z"},
		{"yesterday 10:30", "2026-03-17T10:30:00Z"},
		{"tomorrow", "2026-03-19T00:00:00Z"},
		{"-1 day midnight", "2026-03-17T00:00:00Z"},
		{"monday", "2026-03-23T00:00:00Z"},
		{"wednesday", "2026-03-18T00:00:00Z"},
		{"next wednesday", "2026-03-25T00:00:00Z"},
		{"last monday", "2026-03-16T00:00:00Z"},
		{"last wednesday", "2026-03-11T00:00:00Z"},
		{"last sunday", "2026-03-15T00:00:00Z"},
		{"monday this week", "2026-03-16T00:00:00Z"},
		{"sunday this week", "2026-03-22T00:00:00Z"},
		{"monday next week", "2026-03-23T00:00:00Z"},
		{"monday last week", "2026-03-09T00:00:00Z"},
		{"first day of this month", "2026-03-01T15:04:05Z"},
		{"first day of this month midnight", "2026-03-01T00:00:00Z"},
		{"first day of last month", "2026-02-01T15:04:05Z"},
		{"last day of previous month", "2026-02-28T15:04:05Z"},
		{"first day of january 2020", "2020-01-01T00:00:00Z"},
		{"-3 weekdays", "2026-03-13T15:04:05Z"},
		{"2020-01-31", "2020-01-31T00:00:00Z"},
		{"2020-1-3", "2020-01-03T00:00:00Z"},
		{"2020-01-31 10:20", "2020-01-31T10:20:00Z"},
		{"2020-01-31 10:20:30", "2020-01-31T10:20:30Z"},
		{"2020-01-31T10:20:30Z", "2020-01-31T10:20:30Z"},
		{"2020-01-31T10:20:30.123Z", "2020-01-31T10:20:30Z"},
		{"2020-01-31T10:20:30+02:00", "2020-01-31T08:20:30Z"},
		{"2020-01-31T10:20:30+0200", "2020-01-31T08:20:30Z"},
		{"2020-01-31T10:20:30-0730", "2020-01-31T17:50:30Z"},
		{"2020-01-31 10:20 UTC", "2020-01-31T10:20:00Z"},
		{"2020-01-31 +1 day", "2020-02-01T00:00:00Z"},
		{"2020/01/31", "2020-01-31T00:00:00Z"},
		{"01/31/2020", "2020-01-31T00:00:00Z"},
		{"31.1.2020", "2020-01-31T00:00:00Z"},
		{"31-01-2020", "2020-01-31T00:00:00Z"},
		{"2020-01", "2020-01-01T00:00:00Z"},
		{"20200131", "2020-01-31T00:00:00Z"},
		{"20200131T101500", "2020-01-31T10:15:00Z"},
		{"20200131101500", "2020-01-31T10:15:00Z"},
		{"31 January 2020", "2020-01-31T00:00:00Z"},
		{"January 31, 2020", "2020-01-31T00:00:00Z"},
		{"Jan 31st, 2020", "2020-01-31T00:00:00Z"},
		{"January 2020", "2020-01-01T00:00:00Z"},
		{"Mon, 15 Aug 2005 15:52:01 +0000", "2005-08-15T15:52:01Z"},
		{"10am", "2026-03-18T10:00:00Z"},
		{"10:30 pm", "2026-03-18T22:30:00Z"},
		{"12 a.m.", "2026-03-18T00:00:00Z"},
		{"1234567890", "2009-02-13T23:31:30Z"},
		{"@1234567890", "2009-02-13T23:31:30Z"},
		{"@86400", "1970-01-02T00:00:00Z"},
	}
	for _, tt := range tests {
		got, err := mapping.ParseTime(tt.text, now)
		if err != nil || got.UTC().Format(time.RFC3339) != tt.want {
			t.Errorf("ParseTime(%q) = %v, %v, want %s", tt.text, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", " ", "soon", "-2 dayz", "2020-13-01", "2020", "2020-01-01 2021-01-01", "99999999999999999999", "10:00 11:00", "yesterdayx", "2 3", "Nowhere/Land"} {
		if got, err := mapping.ParseTime(bad, now); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ParseTime(%q) = %v, %v, want ErrInvalid", bad, got, err)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"-2 days", "first day of last month", "2020-01-31T10:20:30+02:00", "monday next week"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := mapping.ParseTime(s, time.Now())
		if err != nil && !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ParseTime(%q): %v, want ErrInvalid", s, err)
		}
	})
}
