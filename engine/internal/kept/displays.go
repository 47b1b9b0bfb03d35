package kept

import (
	"context"
	"errors"
	"io"

	"github.com/caissonrun/caisson/engine"
)

var _ engine.Displayer = bare{}

// Displays implements engine.Displayer.
func (b bare) Displays(ctx context.Context) ([]engine.Display, error) {
	return nil, Unsupported("displays", errNoDisplays)
}

// OpenDisplay implements engine.Displayer.
func (b bare) OpenDisplay(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	return nil, Unsupported("displays", errNoDisplays)
}

var errNoDisplays = errors.New("this engine has none")
