package csv_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component/storage/csv"
)

// read returns all rows of text in the one form.
func read(t *testing.T, src io.Reader, o csv.Options) (string, error) {
	t.Helper()
	r := csv.NewReader(src, o)
	var out bytes.Buffer
	_, err := r.WriteTo(&out)
	if err == nil && r.Rows() != int64(rows(out.Bytes())) {
		t.Errorf("Rows = %d, want %d", r.Rows(), rows(out.Bytes()))
	}
	return out.String(), err
}

func rows(b []byte) (n int) {
	for {
		line, rest := csv.Cut(b)
		if line == nil {
			return n
		}
		n++
		b = rest
	}
}

func TestReader(t *testing.T) {
	for name, c := range map[string]struct {
		o        csv.Options
		in, want string
	}{
		"Nothing":        {csv.Options{}, "", ""},
		"Plain":          {csv.Options{}, "a,b\n1,2\n", "'a','b'\n'1','2'\n"},
		"OneForm":        {csv.Options{Width: 2}, "'a','b'\n'x''y','1\n2'\n", "'a','b'\n'x''y','1\n2'\n"},
		"Mixed":          {csv.Options{Width: 2}, "'a','b'\nc,'d'\n'e','f'\n", "'a','b'\n'c','d'\n'e','f'\n"},
		"NoLastLF":       {csv.Options{}, "a,b\n1,2", "'a','b'\n'1','2'\n"},
		"NoLastLFQuoted": {csv.Options{Width: 1}, "'a'\n'b'", "'a'\n'b'\n"},
		"CRLF":           {csv.Options{}, "a,b\r\n'1','2'\r\n", "'a','b'\n'1','2'\n"},
		"LoneCR":         {csv.Options{}, "a\rb,c\n", "'a\rb','c'\n"},
		"CRLFInside":     {csv.Options{}, "'a\r\nb'\n", "'a\r\nb'\n"},
		"EmptyFields":    {csv.Options{}, ",\n,", "'',''\n'',''\n"},
		"EmptyLine":      {csv.Options{Width: 1}, "a\n\nb\n", "'a'\n''\n'b'\n"},
		"Mark":           {csv.Options{}, "\xef\xbb\xbfa,b\n", "'a','b'\n"},
		"Tab":            {csv.Options{Delimiter: '\t'}, "a,b\t'c'\n", "'a,b','c'\n"},
		"Enclosure":      {csv.Options{Enclosure: '|'}, "|a||b|,c'd\n", "'a|b','c''d'\n"},
		"Umlaut":         {csv.Options{}, "ä,日本\n", "'ä','日本'\n"},
	} {
		t.Run(name, func(t *testing.T) {
			quote := strings.NewReplacer("'", `"`)
			for how, src := range map[string]io.Reader{
				"whole":  strings.NewReader(quote.Replace(c.in)),
				"a byte": iotest.OneByteReader(strings.NewReader(quote.Replace(c.in))),
			} {
				got, err := read(t, src, c.o)
				if err != nil || got != quote.Replace(c.want) {
					t.Errorf("read %s = %q, %v, want %q", how, got, err, quote.Replace(c.want))
				}
			}
		})
	}
}

func TestReaderErrors(t *testing.T) {
	for name, c := range map[string]struct {
		o        csv.Options
		in, want string
	}{
		"Ragged":     {csv.Options{Name: "t.csv", Skip: 1}, "a,b\n\"1\n2\",3\n4\n", "t.csv: line 5: the row has 1 value instead of 2"},
		"Wide":       {csv.Options{Width: 1}, "\"a\"\n\"a\",\"b\"\n", "line 2: the row has 2 values instead of 1"},
		"Blank":      {csv.Options{Width: 2}, "a,b\n\n", "line 2: the row has 1 value"},
		"Bare":       {csv.Options{}, "a,b\"c\n", "line 1: '\"' inside"},
		"After":      {csv.Options{}, "\"a\"b\n", "line 1: text after the '\"'"},
		"Open":       {csv.Options{}, "a\n\"b\nc\n", "line 2: a value that begins with '\"' does not end"},
		"NUL":        {csv.Options{}, "a\nb\x00\n", "line 2: a NUL byte"},
		"UTF8":       {csv.Options{Width: 1}, "\"a\"\n\"\xff\"\n", "line 2: not UTF-8"},
		"Cell":       {csv.Options{CellLimit: 4}, "1234\n12345\n", "line 2: the value of column 1 is longer than"},
		"CellQuoted": {csv.Options{CellLimit: 4, Width: 1}, "\"1234\"\n\"12345\"\n", "line 2: the value of column 1 is longer than"},
		"Row":        {csv.Options{CellLimit: 1 << 10}, "\"" + strings.Repeat("x", 4<<20), "line 1: the row is longer than"},
		"Fields":     {csv.Options{}, strings.Repeat(",", csv.FieldLimit+1) + "\n", "line 1: the row has more than 16384 values"},
		"Delimiter":  {csv.Options{Delimiter: '"'}, "a\n", "two different ASCII"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, strings.NewReader(c.in), c.o)
			if !errors.Is(err, caisson.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v, want ErrInvalid with %q", err, c.want)
			}
		})
	}
	broken := errors.New("broken")
	if _, err := read(t, iotest.ErrReader(broken), csv.Options{}); !errors.Is(err, broken) {
		t.Errorf("error = %v, want the source's", err)
	}
}

// Values that were written come back, however they are read.
func TestValues(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	letters := []string{`"`, ",", "\n", "\r", "x", "ä", ";", "", "0123456789abcdefghij"}
	for range 500 {
		width := 1 + rng.IntN(4)
		var all [][]string
		var text []byte
		for range rng.IntN(20) {
			row := make([]string, width)
			for i := range row {
				for range rng.IntN(5) {
					row[i] += letters[rng.IntN(len(letters))]
				}
			}
			all = append(all, row)
			text = append(text, csv.Line(row)...)
		}
		got, err := read(t, bytes.NewReader(text), csv.Options{Width: width})
		if err != nil || got != string(text) {
			t.Fatalf("read(%q) = %q, %v", text, got, err)
		}
		// The same through the slower way: another width is found out first.
		if got, err = read(t, iotest.HalfReader(bytes.NewReader(text)), csv.Options{}); err != nil || got != string(text) {
			t.Fatalf("read(%q) = %q, %v", text, got, err)
		}
		r := csv.NewReader(bytes.NewReader(text), csv.Options{Width: width})
		for _, want := range all {
			line, err := r.Next()
			if err != nil || !slices.Equal(csv.Values(line), want) {
				t.Fatalf("Next = %q, %v, want %q", line, err, want)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("Next after the last row = %v, want EOF", err)
		}
	}
}

func TestReadHead(t *testing.T) {
	text := "\xef\xbb\xbfa,\"b\nc\"\r\n1,2\n"
	head, err := csv.ReadHead(strings.NewReader(text), csv.Options{})
	if err != nil || !slices.Equal(head.Columns, []string{"a", "b\nc"}) || text[head.Size:] != "1,2\n" || head.Lines != 2 {
		t.Errorf("ReadHead = %+v, %v", head, err)
	}
	// What is no header does not fill memory.
	for _, text := range []string{strings.Repeat(",", 1<<20), strings.Repeat("x", 8<<20)} {
		if _, err := csv.ReadHead(strings.NewReader(text), csv.Options{}); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("ReadHead = %v, want ErrInvalid", err)
		}
	}
	if _, err := csv.ReadHead(strings.NewReader(""), csv.Options{}); !errors.Is(err, io.EOF) {
		t.Errorf("ReadHead of nothing = %v, want EOF", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("a,b\n\"1\",2\r\n"), byte(','), byte('"'))
	f.Fuzz(func(t *testing.T, in []byte, delimiter, enclosure byte) {
		o := csv.Options{Delimiter: delimiter, Enclosure: enclosure, CellLimit: 1 << 10}
		once, err := read(t, bytes.NewReader(in), o)
		slow, slowErr := read(t, iotest.OneByteReader(bytes.NewReader(in)), o)
		if (err == nil) != (slowErr == nil) || err == nil && once != slow {
			t.Fatalf("read = %q, %v; by bytes %q, %v", once, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		if twice, err := read(t, strings.NewReader(once), csv.Options{}); err != nil || twice != once {
			t.Fatalf("the one form is read as %q, %v, want %q", twice, err, once)
		}
	})
}

func BenchmarkReader(b *testing.B) {
	plain := []byte(strings.Repeat("Germany,DEU,1960,72814900\n", 1<<16))
	quoted, err := read2(plain)
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string][]byte{"Plain": plain, "OneForm": quoted} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				csv.NewReader(bytes.NewReader(text), csv.Options{Width: 4}).WriteTo(io.Discard)
			}
		})
	}
}

func read2(text []byte) ([]byte, error) {
	var out bytes.Buffer
	_, err := csv.NewReader(bytes.NewReader(text), csv.Options{}).WriteTo(&out)
	return out.Bytes(), err
}
