package main

import (
	"fmt"
	"slices"
	"time"
)

// samples are the times that one thing took.
type samples []time.Duration

func (s samples) sorted() samples { c := slices.Clone(s); slices.Sort(c); return c }

func (s samples) median() time.Duration { return s.sorted()[len(s)/2] }

func (s samples) String() string {
	sorted := s.sorted()
	return fmt.Sprintf("%s (min %s)", short(s.median()), short(sorted[0]))
}

func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.0f µs", float64(d)/1e3)
}

// ratio compares two medians.
func ratio(a, b samples) string {
	return fmt.Sprintf("%.2f", float64(a.median())/float64(b.median()))
}

// inTurn times each of the functions n times, one after the other in every
// round, after one round that does not count. So all meet the same noise.
func inTurn(n int, fns ...func() error) ([]samples, error) {
	all := make([]samples, len(fns))
	for round := range n + 1 {
		for i, fn := range fns {
			start := time.Now()
			if err := fn(); err != nil {
				return nil, err
			}
			if round > 0 {
				all[i] = append(all[i], time.Since(start))
			}
		}
	}
	return all, nil
}

func rate(bytes int64, took time.Duration) string {
	return fmt.Sprintf("%.0f MB/s", float64(bytes)/1e6/took.Seconds())
}
