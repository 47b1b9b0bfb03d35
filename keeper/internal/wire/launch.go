package wire

// Argv0 is what a keeper is called in lists of processes.
const Argv0 = "caisson-keeper"

// MaxSpec bounds a Spec's JSON, in bytes.
const MaxSpec = 64 << 20

// Ack is the byte that a launcher sends once it has read that the keeper is
// ready. Without it the keeper undoes everything and ends, because then the
// launcher has died or given up.
const Ack = 'k'

// Launched is what a keeper writes to its stdout, on one line, when the
// sandbox is in place or could not be made.
type Launched struct {
	Ready bool     `json:"ready"`
	Error *Failure `json:"error,omitempty"`
}
