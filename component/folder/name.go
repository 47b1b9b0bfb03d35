//go:build unix

package folder

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
)

// maxName is the longest name of data: the manifest's must fit as well.
const maxName = 255 - len(ManifestSuffix)

// CheckName says what is wrong with the name of a table or a file that somebody
// wants to have in in/ (a destination) or says to be in out/ (a source). Errors:
// ErrInvalid.
func CheckName(name string) error {
	if why := badName(name); why != "" {
		return invalid(caisson.OpValidate, "", "%s", quoted(name)+" "+why)
	}
	if strings.HasSuffix(name, ManifestSuffix) {
		return invalid(caisson.OpValidate, "", "%q is the name of a manifest: use one that does not end in %s", name, ManifestSuffix)
	}
	return nil
}

// badName says why name can't be that of a file with data; "" if it can.
func badName(name string) string {
	switch {
	case name == "":
		return "is no name"
	case name == "." || name == ".." || strings.Contains(name, "/"):
		return `is no name of a file: it must not have "/" and not be ".."`
	case len(name) > maxName:
		return "is too long a name"
	case !utf8.ValidString(name):
		return "has a name that is no text in UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "has a control character in its name, such as a line break"
	}
	return ""
}

// quoted returns a name that anybody may have made for an error.
func quoted(name string) string {
	const most = 200
	if len(name) > most {
		name = name[:most] + "..."
	}
	return strconv.Quote(name)
}
