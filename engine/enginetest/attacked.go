package enginetest

import "github.com/caissonrun/caisson/engine/attack"

// attacked returns the body of a case that is an attack of package attack.
func attacked(name string) func(t *T) {
	return func(t *T) {
		a := attack.Find(name)
		outcome := attack.Try(t.ctx, &a, t.place())
		if outcome.Status == attack.Held {
			return
		}
		for _, why := range outcome.Why {
			t.Errorf("%s: %s", outcome.Status, why)
		}
	}
}

// place is where the attacks of this case are tried.
func (t *T) place() *attack.Place {
	p := &attack.Place{
		Engine: t.engine, Features: &t.features, Dir: t.dir, Owner: t.owner,
		Spec: t.spec, Argv: t.argv, Inside: t.h.Inside, Hidden: t.h.Folders,
		Few: t.h.Slow && !*heavy,
	}
	if *heavy {
		const rounds = 20
		p.Rounds = rounds
	}
	return p
}
