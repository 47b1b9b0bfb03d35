package machine

import (
	"time"

	"github.com/caissonrun/caisson"
)

// States is a folder of saved states, of one user and for all machines that this
// user makes. What is in them comes from guests: whoever goes on from one trusts
// whoever made it, so none but those of machines in which nothing of a task has
// run are put here.
type States struct {
	dir string
	max int
	age time.Duration
}

// StatesOptions bound a folder of states. Zero is the default.
type StatesOptions struct {
	Max int           // how many; 16
	Age time.Duration // since the last use; 30 days
}

// A State is one saved state.
type State struct {
	Key string `json:"key"`
	// Name is what it is of, for people, and for telling one that was made for the
	// same and does not fit any more.
	Name  string        `json:"name"`
	Shape *Shape        `json:"shape"`
	Size  caisson.Bytes `json:"size"` // of File
	Made  time.Time     `json:"made"`
	Used  time.Time     `json:"-"`
	File  string        `json:"-"` // its path
}
