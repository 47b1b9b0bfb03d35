package fields

import (
	"fmt"
	"strings"
)

// The lines of a document between which Insert puts its text.
const (
	begin = "<!-- fields -->\n"
	end   = "<!-- end of fields -->\n"
)

// Insert returns page with the tables of t between the two lines that mark
// their place.
func Insert(page string, t *Type) (string, error) {
	head, rest, ok := strings.Cut(page, begin)
	if !ok {
		return "", fmt.Errorf("the line %q is missing", begin)
	}
	_, tail, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("the line %q is missing", end)
	}
	return head + begin + "\n" + Markdown(t) + "\n" + end + tail, nil
}
