package cli

import (
	"github.com/spf13/pflag"

	"github.com/caissonrun/caisson"
)

// durationValue is a flag in the text form of caisson.Duration.
type durationValue struct{ to *caisson.Duration }

// durationVar adds a flag for a duration; zero is shown as no default.
func durationVar(flags *pflag.FlagSet, to *caisson.Duration, name, usage string) {
	flags.Var(durationValue{to}, name, usage)
}

// Set implements pflag.Value.
func (v durationValue) Set(text string) error { return v.to.UnmarshalText([]byte(text)) }

// Type implements pflag.Value.
func (v durationValue) Type() string { return "duration" }

// String implements pflag.Value.
func (v durationValue) String() string {
	if v.to == nil || *v.to == 0 {
		return ""
	}
	return v.to.String()
}
