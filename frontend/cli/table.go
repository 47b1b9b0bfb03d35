package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caissonrun/caisson"
)

// table prints rows in columns. Cells are cleaned, so that no name or message
// of a task can move the cursor.
type table struct {
	w *tabwriter.Writer
}

func newTable(w io.Writer, titles ...string) *table {
	t := linesTable(w)
	t.row(titles...)
	return t
}

// linesTable is a table without titles.
func linesTable(w io.Writer) *table {
	return &table{w: tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
}

func (t *table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = orDash(oneLine(cell))
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

// printJSON prints v indented, for people and programs alike.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago is how long before now t was, for tables.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(now.Sub(t)) + " ago"
}

// span shortens a duration to its one or two largest units.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// size rounds b to three digits for people; -1, what could not be measured, is
// a dash.
func size(b caisson.Bytes) string {
	if b < 0 {
		return "-"
	}
	value, unit := float64(b), ""
	for _, u := range []string{"k", "m", "g", "t"} {
		if value < 1000 {
			break
		}
		value, unit = value/1024, u
	}
	if unit != "" && value < 10 {
		return fmt.Sprintf("%.1f%s", value, unit)
	}
	return fmt.Sprintf("%.0f%s", value, unit)
}

// took rounds a duration to what a person wants to know.
func took(d caisson.Duration) string {
	std := d.Std()
	switch {
	case std < 0:
		return "-"
	case std >= 10*time.Second:
		return std.Round(100 * time.Millisecond).String()
	case std >= 10*time.Millisecond:
		return std.Round(time.Millisecond).String()
	}
	return std.Round(10 * time.Microsecond).String()
}
