// Command aggregate adds up populations by region and year.
//
// It is a component for the contract of docs/components.md and uses none of
// Caisson's code. It reads the table that the parameter table names, and writes
// regions.csv; all else in its input it hands on, so that it can be a processor
// as well.
package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A userError is what the person who wrote the configuration can mend.
type userError struct{ error }

func main() {
	err := run(data())
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.As(err, new(userError)) {
		os.Exit(1)
	}
	os.Exit(2)
}

func data() string {
	if dir := os.Getenv("KBC_DATADIR"); dir != "" {
		return dir
	}
	return "/data/"
}

func run(dir string) error {
	var config struct {
		Parameters struct {
			Table string `json:"table"`
		} `json:"parameters"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err == nil {
		err = json.Unmarshal(text, &config)
	}
	if err != nil {
		return err
	}
	name := config.Parameters.Table
	if name == "" {
		return userError{errors.New("the parameter table is missing")}
	}
	sums, err := add(filepath.Join(dir, "in", "tables", name))
	if err != nil {
		return err
	}
	if err := handOn(filepath.Join(dir, "in"), filepath.Join(dir, "out")); err != nil {
		return err
	}
	return write(filepath.Join(dir, "out", "tables", "regions.csv"), sums)
}

// A group is what is added up.
type group struct{ region, year string }

// A sum is of one group.
type sum struct {
	countries, population int64
	largest               string
	most                  int64
}

func add(file string) (map[group]*sum, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, userError{fmt.Errorf("table %s was not mapped in", filepath.Base(file))}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", filepath.Base(file), err)
	}
	at := make(map[string]int)
	for i, column := range header {
		at[column] = i
	}
	for _, column := range []string{"region", "year", "name", "population"} {
		if _, ok := at[column]; !ok {
			return nil, userError{fmt.Errorf("table %s has no column %s", filepath.Base(file), column)}
		}
	}
	sums := make(map[group]*sum)
	for {
		row, err := r.Read()
		if err == io.EOF {
			return sums, nil
		}
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", filepath.Base(file), err)
		}
		n, err := strconv.ParseInt(row[at["population"]], 10, 64)
		if err != nil {
			line, _ := r.FieldPos(0)
			return nil, userError{fmt.Errorf("table %s, line %d: population %q is no number", filepath.Base(file), line, row[at["population"]])}
		}
		key := group{strings.Clone(row[at["region"]]), strings.Clone(row[at["year"]])}
		s := sums[key]
		if s == nil {
			s = &sum{}
			sums[key] = s
		}
		s.countries++
		s.population += n
		if n > s.most {
			s.most, s.largest = n, strings.Clone(row[at["name"]])
		}
	}
}

// handOn copies what the next step is to see.
func handOn(in, out string) error {
	for _, folder := range []string{"tables", "files"} {
		if err := os.CopyFS(filepath.Join(out, folder), os.DirFS(filepath.Join(in, folder))); err != nil {
			return err
		}
	}
	return nil
}

func write(file string, sums map[group]*sum) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	if err := w.Write([]string{"region", "year", "countries", "population", "largest"}); err != nil {
		return err
	}
	keys := slices.SortedFunc(maps.Keys(sums), func(a, b group) int {
		return strings.Compare(a.region+"\x00"+a.year, b.region+"\x00"+b.year)
	})
	for _, key := range keys {
		s := sums[key]
		row := []string{key.region, key.year, strconv.FormatInt(s.countries, 10), strconv.FormatInt(s.population, 10), s.largest}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	w.Flush()
	if err := errors.Join(w.Error(), f.Close()); err != nil {
		return err
	}
	fmt.Printf("%d sums by region and year\n", len(sums))
	manifest := `{"incremental": true, "primary_key": ["region", "year"]}`
	return os.WriteFile(file+".manifest", []byte(manifest), 0o644)
}
