package storagetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

func concurrencyRules() []rule {
	return []rule{
		{"concurrent/loads", "loads of one table at the same time are all done", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			var wg sync.WaitGroup
			for i := range 8 {
				e := []*env{a, b}[i%2]
				l := e.more(people, "id", fmt.Sprint(i))
				wg.Go(func() {
					if _, err := e.Load(e.ctx, l); err != nil {
						e.Errorf("Load: %v", err)
					}
				})
			}
			wg.Wait()
			e.want(people, "0", "1", "2", "3", "4", "5", "6", "7")
		}},
		{"concurrent/same", "a load that is done by two at the same time is done once", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			l := e.more(people, "id", "1")
			var wg sync.WaitGroup
			again := make([]bool, 4)
			for i := range again {
				wg.Go(func() {
					done, err := []*env{a, b}[i%2].Load(e.ctx, l)
					if err != nil {
						e.Errorf("Load: %v", err)
						return
					}
					again[i] = done.Again
				})
			}
			wg.Wait()
			e.want(people, "1")
			slices.SortFunc(again, func(a, b bool) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			if !slices.Equal(again, []bool{false, true, true, true}) {
				e.Errorf("Again = %v, want one that did it", again)
			}
		}},
		{"concurrent/read", "who reads while others load sees one version, whole", func(_ *testing.T, e *env) {
			const n = 300
			version := func(i int) *storage.Load {
				var text []byte
				for range n {
					text = append(text, rows(fmt.Sprint(i))...)
				}
				l := e.load(people, "id")
				l.Slices = []storage.Slice{Slice("rows.csv", text)}
				return l
			}
			e.do(version(0))
			loads := []*storage.Load{version(1), version(2), version(3), version(4), version(5), version(6)}
			var wg sync.WaitGroup
			wg.Go(func() {
				other := e.again()
				for _, l := range loads {
					if _, err := other.Load(e.ctx, l); err != nil {
						e.Errorf("Load: %v", err)
					}
				}
			})
			for range 30 {
				for _, q := range []*storage.Query{nil, {Columns: []string{"id"}, Limit: 2 * n}} {
					got := e.get(people, q)
					if len(got) != n || len(slices.Compact(got)) != 1 {
						e.Errorf("%d rows, want %d of one version", len(got), n)
					}
				}
			}
			wg.Wait()
			e.want(people, slices.Repeat([]string{"6"}, n)...)
		}},
		{"concurrent/files", "files that are put at the same time have ids of their own", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			var wg sync.WaitGroup
			ids := make([]int64, 8)
			for i := range ids {
				wg.Go(func() {
					f, err := []*env{a, b}[i%2].PutFile(e.ctx, &storage.NewFile{Load: fmt.Sprint("load ", i), Name: "f"}, strings.NewReader(fmt.Sprint(i)))
					if err != nil {
						e.Errorf("PutFile: %v", err)
						return
					}
					ids[i] = f.ID
				})
			}
			wg.Wait()
			for i, id := range ids {
				if got := e.read(id); got != fmt.Sprint(i) {
					e.Errorf("file %d = %q, want %d", id, got, i)
				}
			}
		}},
		{"concurrent/file", "a file that is put by two at the same time, by the same load, is there once", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			var wg sync.WaitGroup
			ids := make([]int64, 4)
			for i := range ids {
				wg.Go(func() {
					f, err := []*env{a, b}[i%2].PutFile(e.ctx, &storage.NewFile{Load: "the load", Name: "f"}, strings.NewReader("content"))
					if err != nil {
						e.Errorf("PutFile: %v", err)
						return
					}
					ids[i] = f.ID
				})
			}
			wg.Wait()
			if len(slices.Compact(ids)) != 1 || e.names(nil) != "f" || e.read(ids[0]) != "content" {
				e.Errorf("ids %v, files %q, want one", ids, e.names(nil))
			}
		}},
		{"concurrent/documents", "of those who replace the same version of a document one does", func(_ *testing.T, e *env) {
			a, b := e, e.again()
			version, err := e.PutDocument(e.ctx, "d", []byte("0"), "")
			if err != nil {
				e.Fatal(err)
			}
			var wg sync.WaitGroup
			errs := make([]error, 6)
			for i := range errs {
				wg.Go(func() {
					_, errs[i] = []*env{a, b}[i%2].PutDocument(e.ctx, "d", fmt.Append(nil, "by ", i), version)
				})
			}
			wg.Wait()
			won := -1
			for i, err := range errs {
				switch {
				case err == nil && won >= 0:
					e.Errorf("%d and %d both replaced it", won, i)
				case err == nil:
					won = i
				default:
					e.is(err, caisson.ErrExists)
				}
			}
			if data, _, err := e.Document(e.ctx, "d"); err != nil || string(data) != fmt.Sprint("by ", won) {
				e.Errorf("Document = %q, %v, want that of %d", data, err, won)
			}
		}},
	}
}
