//go:build unix

package mapping

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
)

// TestPlanHasALimit: however many tables a component writes, a plan of them is
// not larger than what may be held in memory.
func TestPlanHasALimit(t *testing.T) {
	p := &planner{size: maxPlan - 100}
	if err := p.grow("fits"); err != nil {
		t.Errorf("grow = %v", err)
	}
	if err := p.grow(strings.Repeat("x", 100)); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("grow = %v, want ErrInvalid", err)
	}
}

// TestProblemsHaveALimit: so do the messages that tell what is wrong with them.
func TestProblemsHaveALimit(t *testing.T) {
	p := &planner{Output: &Output{}, ctx: context.Background(), plan: &Plan{}}
	for range maxProblems + 7 {
		p.problemf("x", "%s", strings.Repeat("long ", 1<<16))
		p.warn("%s", strings.Repeat("long ", 1<<16))
	}
	err := p.told()
	if !errors.Is(err, caisson.ErrInvalid) || !strings.HasSuffix(err.Error(), "and 7 more") || len(err.Error()) > maxProblems*(maxText+100) {
		t.Errorf("told = %d bytes, want %d problems of %d and how many more", len(err.Error()), maxProblems, maxText)
	}
	if len(p.plan.Warnings) != maxProblems || len(p.plan.Warnings[0]) > maxText+10 {
		t.Errorf("%d warnings, the first of %d bytes", len(p.plan.Warnings), len(p.plan.Warnings[0]))
	}
}
