package storage_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage"
)

func files() []storage.File {
	day := func(d int) time.Time { return time.Date(2020, 1, d, 12, 0, 0, 0, time.UTC) }
	return []storage.File{
		{ID: 1, Name: "a.csv", Tags: []string{"x"}, Created: day(1), Size: 10},
		{ID: 2, Name: "b (1).csv", Tags: []string{"x", "two words"}, Created: day(2), Size: 20, Public: true},
		{ID: 3, Name: `say "c".txt`, Tags: []string{"y", "componentId: ex-db"}, Created: day(3), Size: 30},
	}
}

// chosen is the ids of the files that a query chooses.
func chosen(q *storage.FileQuery) (string, error) {
	match, err := q.Matcher()
	if err != nil {
		return "", err
	}
	var ids strings.Builder
	for _, f := range files() {
		if match(&f) {
			ids.WriteByte('0' + byte(f.ID))
		}
	}
	return ids.String(), nil
}

func TestFileQuery(t *testing.T) {
	for query, want := range map[string]string{
		`tags:x`:                                    "12",
		`tags:"x"`:                                  "12",
		`tags:"x" AND NOT tags:"two words"`:         "1",
		`tags:"x" AND -tags:"two words"`:            "1",
		`+tags:x -tags:"two words"`:                 "1",
		`tags:x && !name:a.csv`:                     "2",
		`NOT tags:x`:                                "3",
		`tags:("x" AND "two words")`:                "2",
		`tags:(y OR "two words")`:                   "23",
		`tags:y tags:"two words"`:                   "23",
		`tags:"x" || tags:y`:                        "123",
		`(tags:x OR tags:y) AND NOT (id:1 OR id:3)`: "2",
		`tags:"componentId: ex-db"`:                 "3",
		`tags:componentId\:\ ex-db`:                 "3",
		`name:a.csv`:                                "1",
		`name:*.csv`:                                "12",
		`name:?.csv`:                                "1",
		`name:"*.csv"`:                              "",
		`name:"b (1).csv"`:                          "2",
		`name:"say \"c\".txt"`:                      "3",
		`id:(1 OR 3)`:                               "13",
		`id:[2 TO *]`:                               "23",
		`id:{1 TO 3}`:                               "2",
		`id:[1 TO 3}`:                               "12",
		`sizeBytes:[* TO 20]`:                       "12",
		`isPublic:true`:                             "2",
		`created:["2020-01-02T00:00:00" TO *]`:      "23",
		`created:[2020-01-02T12:00:00+00:00 TO 2020-01-02]`:                     "",
		`created:[2020-01-01 TO 2020-01-02T12:00:00Z]`:                          "12",
		`created:"2020-01-03"`:                                                  "3",
		`created:[2020-01-01T13:00:00+0100 TO 2020-01-01T12:00]`:                "1",
		`tags:x AND created:["2020-01-01T12:00:00Z" TO "2020-01-01T12:00:00Z"]`: "1",
	} {
		if got, err := chosen(&storage.FileQuery{Query: query}); err != nil || got != want {
			t.Errorf("%s chooses %q, %v, want %q", query, got, err, want)
		}
	}
	// What is said beside a query is true as well.
	if got, err := chosen(&storage.FileQuery{Query: "tags:x", NotTags: []string{"two words"}}); err != nil || got != "1" {
		t.Errorf("with NotTags: %q, %v", got, err)
	}
}

func TestFileQueryErrors(t *testing.T) {
	for _, query := range []string{
		"x", `"x"`, "owner:me", "tags:", "tags:(x", "tags:x)", "tags:x AND", "NOT", "tags:[x", "id:[1 TO", "id:[1 OR 2]", "id:[a TO *]", "created:soon",
		"created:[soon TO *]", "tags:x :y", strings.Repeat("(", 1000), strings.Repeat("NOT ", 10), `"`, strings.Repeat("-", 1<<20),
	} {
		if _, err := chosen(&storage.FileQuery{Query: query}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", query, err)
		}
	}
}

func FuzzFileQuery(f *testing.F) {
	f.Add(`tags:"x" AND NOT (name:*.csv OR id:[1 TO *])`)
	f.Fuzz(func(t *testing.T, query string) {
		if _, err := chosen(&storage.FileQuery{Query: query}); err != nil && !errors.Is(err, caisson.ErrInvalid) {
			t.Error(err)
		}
	})
}

func TestParseID(t *testing.T) {
	id, err := storage.ParseID("in.c-main.my_table-1")
	if err != nil || id != (storage.ID{Stage: "in", Bucket: "c-main", Table: "my_table-1"}) || id.String() != "in.c-main.my_table-1" {
		t.Errorf("ParseID = %+v, %v", id, err)
	}
	for _, text := range []string{"", "a", "in.c-main", "sys.c-main.t", "in.c-main.t.u", "in.c-main.ü", "in.c-main.", "in..t", "in.c-main.a/b", "in.c-main." + strings.Repeat("x", 129)} {
		if _, err := storage.ParseID(text); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ParseID(%q) = %v, want ErrInvalid", text, err)
		}
	}
}
