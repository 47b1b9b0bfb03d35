package native_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/caissonrun/caisson/engine/native"
)

// BenchmarkRun is a whole sandbox, from Create to Destroy, in a warm process.
// Its phases' medians are reported, too.
func BenchmarkRun(b *testing.B) {
	for _, isolation := range []string{native.Full, native.None} {
		for _, script := range []string{"exit 0", "id; ls /"} {
			b.Run(fmt.Sprintf("%s/%s", isolation, script), func(b *testing.B) {
				e := newEngine(b, native.Options{Isolation: isolation, Shell: []string{"sh", "-c"}})
				if f, err := e.Probe(b.Context()); err != nil || !f.Usable {
					b.Fatalf("Probe: %v, %+v", err, f.Missing)
				}
				phases := make(map[string][]time.Duration)
				for b.Loop() {
					b.StopTimer()
					s := newSpec(b, script)
					b.StartTimer()
					began := time.Now()
					mark := func(phase string) {
						phases[phase] = append(phases[phase], time.Since(began))
						began = time.Now()
					}
					box, err := e.Create(b.Context(), s)
					if err != nil {
						b.Fatal(err)
					}
					mark("create")
					wait(b, start(b, box))
					mark("run")
					if err := box.Destroy(context.Background()); err != nil {
						b.Fatal(err)
					}
					mark("destroy")
				}
				for name, all := range phases {
					slices.Sort(all)
					b.ReportMetric(float64(all[len(all)/2].Microseconds()), name+"-µs")
				}
			})
		}
	}
}
