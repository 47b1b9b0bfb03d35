//go:build unix

package qemu

import (
	"errors"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/machine"
)

// standardScreen is what a machine shows whose task does not say.
var standardScreen = caisson.Display{Name: "screen", Description: "the machine's screen"}

// screenReserve is what QEMU needs on the host for a screen: the card's memory, and
// what is on its way to viewers.
const screenReserve = 64 * caisson.MiB

// hasScreen reports whether the machine has one: all have that can, so that saved
// states fit all.
func (set *setting) hasScreen() bool {
	return set.kind != machine.MicroVM && set.base.QEMU.Screens()
}

// addScreen gives the machine its screen.
func (set *setting) addScreen(s *engine.Spec, m *machine.Spec) {
	m.Screen = set.hasScreen()
	if m.Screen && len(s.Displays) > 0 {
		m.ScreenWidth, m.ScreenHeight = s.Displays[0].Width, s.Displays[0].Height
	}
}

// checkScreen refuses a task with displays where there is nothing to show.
func (set *setting) checkScreen(s *engine.Spec) error {
	if len(s.Displays) == 0 || set.hasScreen() {
		return nil
	}
	why := errors.New("this QEMU was built without screens")
	if set.kind == machine.MicroVM {
		why = errors.New("a microvm has no screen; use machine.type q35 or pc")
	}
	return kept.Unsupported("displays", why)
}

// displays are those of a task that names none.
func (set *setting) displays() []caisson.Display {
	if !set.hasScreen() {
		return nil
	}
	return []caisson.Display{standardScreen}
}
