package stage

import (
	"strings"

	"github.com/caissonrun/caisson"
)

// SchemeText is the scheme of inputs that hold their contents themselves.
const SchemeText = "text"

// InputScheme returns the scheme that a Fetcher for in must serve: "file",
// "https", "git+ssh". It is SchemeText where in has no URL, and empty where
// in.From is not a URL.
func InputScheme(in *caisson.Input) string {
	if in.From == "" {
		return SchemeText
	}
	return scheme(in.From)
}

// OutputScheme returns the scheme that a Storer for out must serve, and nothing
// where out.To is not a URL.
func OutputScheme(out *caisson.Output) string { return scheme(out.To) }

func scheme(url string) string {
	s, _, ok := strings.Cut(url, ":")
	if !ok {
		return ""
	}
	return strings.ToLower(s)
}
