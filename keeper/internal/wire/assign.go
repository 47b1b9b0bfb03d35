package wire

import (
	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

// An Assignment is another program for a sandbox in which nothing was started. Its
// fields are those of Spec, and take their places.
type Assignment struct {
	Program    isolate.Program  `json:"program"`
	Input      []byte           `json:"input,omitempty"`
	Redact     [][]byte         `json:"redact,omitempty"`
	Timeout    caisson.Duration `json:"timeout,omitempty"`
	StopSignal int              `json:"stop_signal,omitempty"`
	Grace      caisson.Duration `json:"grace,omitempty"`
	Linger     caisson.Duration `json:"linger,omitempty"`
	OnExit     []string         `json:"on_exit,omitempty"`
	OnExitEnv  []string         `json:"on_exit_env,omitempty"`
}
