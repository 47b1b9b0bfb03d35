package text_test

import (
	"errors"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/stage"
	"github.com/caissonrun/caisson/stage/stagetest"
	"github.com/caissonrun/caisson/stage/text"
)

func TestFetcher(t *testing.T) {
	stagetest.TestFetcher(t, stagetest.FetcherHarness{
		New:     func(*testing.T) stage.Fetcher { return text.New() },
		Input:   func(_ *testing.T, data string) caisson.Input { return caisson.Input{Text: data} },
		Instant: true,
	})
}

func TestCheckInputErrBoth(t *testing.T) {
	in := &caisson.Input{From: "file:x", Text: "y", To: "a"}
	if err := text.New().CheckInput(in, &stage.Env{}); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("CheckInput = %v, want ErrInvalid", err)
	}
}
