package oci

import (
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
)

// maxInside is the largest id that a sandbox has.
const maxInside = kept.MaxAccount

// who decides who a program runs as. Unless root is permitted, by the operator or
// for this task, a user that is root in any spelling, or none, becomes the standard
// one.
func (o *Options) who(a *kept.Accounts, s *engine.Spec) (kept.Person, error) {
	return a.Who(s.User, s.Group, isolate.User{UID: o.UID, GID: o.GID}, o.Root || s.Root)
}
