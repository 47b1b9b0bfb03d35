//go:build unix

package selftest

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/caissonrun/caisson/engine/attack"
)

// A Row is one attack with what came of it on each engine.
type Row struct {
	Result                   // the attack; its outcome is that of no engine
	Cells  []*attack.Outcome // by report; nil: it was not tried there
}

// Rows returns the attacks of all reports, in order.
func Rows(reports []Report) []Row {
	var rows []Row
	at := make(map[string]int)
	for i, report := range reports {
		for _, result := range report.Results {
			n, ok := at[result.Name]
			if !ok {
				n = len(rows)
				at[result.Name] = n
				rows = append(rows, Row{Result: result, Cells: make([]*attack.Outcome, len(reports))})
			}
			rows[n].Cells[i] = &result.Outcome
		}
	}
	slices.SortStableFunc(rows, func(a, b Row) int { return compareIDs(a.ID, b.ID) })
	return rows
}

// Cell returns how a table says an outcome.
func Cell(o *attack.Outcome) string {
	switch {
	case o == nil:
		return ""
	case o.Status == attack.NotHeld:
		return "NOT HELD"
	case o.Status == attack.NotApplicable:
		return "n.a."
	}
	return string(o.Status)
}

// Markdown writes the scoreboard: what was tried, and what came of it on each
// engine. What differs between hosts that are the same otherwise, such as
// paths and times, is left out.
func Markdown(w io.Writer, reports []Report) error {
	rows := Rows(reports)
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", intro)
	b.WriteString("| | attack |")
	for _, r := range reports {
		fmt.Fprintf(&b, " %s |", r.Engine)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(reports)) + "\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s | `%s`: %s%s |", row.ID, row.Name, escaped(row.Tries), cves(row.CVE))
		for _, cell := range row.Cells {
			text := Cell(cell)
			if cell != nil && cell.Status == attack.NotHeld {
				text = "**" + text + "**"
			}
			fmt.Fprintf(&b, " %s |", text)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n## What could not be tried, and what was not held\n\n")
	for i, report := range reports {
		if report.Unusable != "" {
			fmt.Fprintf(&b, "- **%s**: %s\n", report.Engine, escaped(report.Unusable))
		}
		b.WriteString(reasons(rows, i, report.Engine))
	}
	b.WriteString("\n## Why it is safe to try\n\n| attack | what keeps the host from harm where it is not held |\n|---|---|\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| `%s` | %s |\n", row.Name, escaped(row.Bound))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const intro = `# Security scoreboard

Made by ` + "`scripts/scoreboard`" + ` from ` + "`caisson selftest`" + ` on the host of the tests; run the same on yours. Each attack is a program that runs as the
task, or an input that a task could bring. "held" says that what must be true on the host was true afterwards; "n.a." that it can't be
tried there, with the reason below. The weaknesses of other programs that an attack stands for are named with it. SECURITY.md says what each engine
is a boundary against.
`

// reasons lists why attacks came out otherwise than held on one engine, those
// with the same reason together.
func reasons(rows []Row, engine int, name string) string {
	var order []string
	names := make(map[string][]string)
	for _, row := range rows {
		cell := row.Cells[engine]
		if cell == nil || cell.Status == attack.Held {
			continue
		}
		why := string(cell.Status)
		if len(cell.Why) > 0 && cell.Status == attack.NotApplicable {
			why += ": " + escaped(cell.Why[0])
		}
		if names[why] == nil {
			order = append(order, why)
		}
		names[why] = append(names[why], "`"+row.Name+"`")
	}
	var b strings.Builder
	for _, why := range order {
		fmt.Fprintf(&b, "- %s: %s; %s\n", name, strings.Join(names[why], ", "), why)
	}
	return b.String()
}

func cves(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

// escaped makes text fit for a cell of a table.
func escaped(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "`", "'", "<", "&lt;").Replace(text)
}
