package csv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
)

const (
	// CellLimit is how large a value may be where Options say nothing, in bytes.
	CellLimit = 64 << 20
	// FieldLimit is how many values a row may have.
	FieldLimit = 1 << 14
	// nameLimit is how large a value of the first row may be that ReadHead reads:
	// it is a name.
	nameLimit = 1 << 20
)

const (
	bufferSize = 512 << 10
	// rowFactor is how many of the largest values make the largest row: a row
	// has to fit into memory.
	rowFactor = 2
)

// Options says what is read. The zero value is RFC 4180 of any width.
type Options struct {
	Name                 string // for errors
	Skip                 int64  // lines of Name before the reader's first
	Width                int    // fields in each row; 0: as many as the first has
	Delimiter, Enclosure byte   // 0: ',' and '"'
	CellLimit            int64  // bytes of a value; 0: CellLimit
}

// A Reader turns CSV into the one form. It is strict: rows of another width,
// quotes out of place, values beyond the limit, NUL, and what is not UTF-8 are
// ErrInvalid, with the line. Lines end with LF or CRLF; the last one may end
// with the text. A mark of the byte order at the start is left out. An empty
// line is a row with one empty value.
type Reader struct {
	src     io.Reader
	o       Options
	special [256]bool // what ends the text of a field without quotes
	closer  [256]bool // what needs a closer look than bare's
	plain   bool      // "," and quotes: rows may be in the one form already

	buf      []byte
	pos, end int // what is not consumed yet
	eof      bool
	begun    bool

	out  []byte
	rest []byte // of the block that Next goes through
	left int64  // rows in rest
	line int64  // lines consumed
	size int64  // bytes consumed
	rows int64
	err  error
}

// NewReader returns a Reader of src.
func NewReader(src io.Reader, o Options) *Reader {
	if o.Delimiter == 0 {
		o.Delimiter = ','
	}
	if o.Enclosure == 0 {
		o.Enclosure = '"'
	}
	if o.CellLimit <= 0 {
		o.CellLimit = CellLimit
	}
	r := &Reader{src: src, o: o, buf: make([]byte, bufferSize), line: o.Skip}
	r.plain = o.Delimiter == ',' && o.Enclosure == '"'
	r.special[o.Delimiter], r.special[o.Enclosure], r.special['\n'] = true, true, true
	r.closer = r.special
	r.closer['"'] = true // it is to be doubled
	if bad := Check(o.Delimiter, o.Enclosure); bad != nil {
		r.err = bad
	}
	return r
}

// Check tells whether rows can be read with these characters; 0 stands for the
// default. Errors: ErrInvalid.
func Check(delimiter, enclosure byte) error {
	bad := func(c byte) bool { return c == '\n' || c == '\r' || c >= utf8.RuneSelf }
	if bad(delimiter) || bad(enclosure) || delimiter == enclosure && delimiter != 0 ||
		delimiter == '"' && enclosure == 0 || enclosure == ',' && delimiter == 0 {
		return &caisson.Error{Kind: caisson.ErrInvalid, Err: fmt.Errorf(
			"delimiter %q and enclosure %q must be two different ASCII characters that end no line", delimiter, enclosure,
		)}
	}
	return nil
}

// Rows returns how many rows were returned.
func (r *Reader) Rows() int64 { return r.rows }

// Next returns the next row, valid until the next call. Errors: io.EOF after
// the last one.
func (r *Reader) Next() ([]byte, error) {
	if len(r.rest) == 0 {
		var err error
		if r.rest, r.left, err = r.block(); err != nil {
			return nil, err
		}
	}
	line, rest := Cut(r.rest)
	r.rest = rest
	r.left--
	r.rows++
	return line, nil
}

// Block returns the next rows, at least one, and how many they are. They are
// valid until the next call. Errors: io.EOF after the last one.
func (r *Reader) Block() ([]byte, int64, error) {
	block, rows := r.rest, r.left
	r.rest, r.left = nil, 0
	if rows > 0 {
		r.rows += rows
		return block, rows, nil
	}
	block, rows, err := r.block()
	r.rows += rows
	return block, rows, err
}

func (r *Reader) block() ([]byte, int64, error) {
	for r.err == nil {
		block, rows := r.take()
		if rows > 0 {
			return block, rows, nil
		}
		if r.err == nil {
			r.fill()
		}
	}
	return nil, 0, r.err
}

// WriteTo writes all rows.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var done int64
	for {
		block, _, err := r.Block()
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err != nil {
			return done, err
		}
		n, err := w.Write(block)
		done += int64(n)
		if err != nil {
			return done, err
		}
	}
}

// take returns the complete rows that are in the buffer.
func (r *Reader) take() ([]byte, int64) {
	b := r.buf[r.pos:r.end]
	if len(b) == 0 {
		return nil, 0
	}
	if r.plain && b[0] == '"' {
		if n, rows := canonical(b, r.o.Width, r.o.CellLimit); rows > 0 {
			if r.text(b[:n]); r.err != nil {
				return nil, 0
			}
			return b[:n], rows
		}
	}
	return r.convert(b)
}

// convert is take for rows that are in another form.
func (r *Reader) convert(b []byte) ([]byte, int64) {
	r.out = r.out[:0]
	var rows int64
	done := 0
	for done < min(len(b), convertAtOnce) {
		n, more := r.bare(b[done:min(len(b), done+convertAtOnce)])
		done += n
		rows += more
		if n > 0 {
			continue
		}
		n, err := r.record(b[done:])
		if err != nil {
			r.fail(r.line+int64(bytes.Count(b[:done], []byte{'\n'})), err)
			return nil, 0
		}
		if n == 0 {
			break
		}
		done += n
		rows++
	}
	if r.text(b[:done]); r.err != nil {
		return nil, 0
	}
	return r.out, rows
}

// convertAtOnce is how much is converted between two looks at what it is: little
// enough for the processor's own memory.
const convertAtOnce = 64 << 10

// bare appends the rows at the start of b to r.out that have no enclosed value,
// in one pass over their bytes. It stops at what needs a closer look, and returns
// how many bytes it took and how many rows those are.
func (r *Reader) bare(b []byte) (n int, rows int64) {
	if r.o.Width == 0 {
		return 0, 0
	}
	// A byte of b becomes three at most: two quotes around nothing, and a mark.
	at := len(r.out)
	out := slices.Grow(r.out, 3*len(b)+2)
	out = out[:cap(out)]
	start, field := at+1, 1
	out[at] = '"'
	o := start
	for p, c := range b {
		if !r.closer[c] {
			out[o] = c
			o++
			continue
		}
		if c != '\n' && c != r.o.Delimiter || int64(o-start) > r.o.CellLimit {
			break
		}
		end := c == '\n'
		if end != (field == r.o.Width) {
			break
		}
		if end && o > start && out[o-1] == '\r' {
			o--
		}
		out[o], out[o+1], out[o+2] = '"', ',', '"'
		if end {
			out[o+1] = '\n'
			field = 0
			n = p + 1
			at = o + 2
			rows++
		}
		o += 3
		start = o
		field++
	}
	r.out = out[:at]
	return n, rows
}

// text consumes b, which must be UTF-8 without NUL.
func (r *Reader) text(b []byte) {
	bad := bytes.IndexByte(b, 0)
	cause := "a NUL byte"
	if bad < 0 && !utf8.Valid(b) {
		bad, cause = invalid(b), "not UTF-8"
	}
	if bad >= 0 {
		r.fail(r.line+int64(bytes.Count(b[:bad], []byte{'\n'})), errors.New(cause))
		return
	}
	r.pos += len(b)
	r.size += int64(len(b))
	r.line += int64(bytes.Count(b, []byte{'\n'}))
}

func invalid(b []byte) int {
	for i := 0; i < len(b); {
		c, size := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(b)
}

func (r *Reader) fail(lines int64, cause error) {
	r.err = &caisson.Error{Item: r.o.Name, Kind: caisson.ErrInvalid, Err: fmt.Errorf("line %d: %w", lines+1, cause)}
}

// fill reads more, in a larger buffer where one row takes all of it.
func (r *Reader) fill() {
	if r.eof {
		r.err = io.EOF
		return
	}
	if r.pos > 0 {
		r.end = copy(r.buf, r.buf[r.pos:r.end])
		r.pos = 0
	}
	if r.end == len(r.buf) {
		most := int(rowFactor*r.o.CellLimit + bufferSize)
		if r.end >= most {
			r.fail(r.line, fmt.Errorf("the row is longer than %s", caisson.Bytes(rowFactor*r.o.CellLimit)))
			return
		}
		larger := make([]byte, min(2*len(r.buf), most))
		copy(larger, r.buf)
		r.buf = larger
	}
	least := 1
	if !r.begun {
		least = len(mark)
	}
	n, err := io.ReadAtLeast(r.src, r.buf[r.end:], least)
	r.end += n
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && !r.begun:
		r.eof = true
	case err != nil:
		r.err = err
	}
	if !r.begun && r.o.Skip == 0 && bytes.HasPrefix(r.buf[:r.end], []byte(mark)) {
		r.pos, r.size = len(mark), int64(len(mark))
	}
	r.begun = true
}

// mark is the mark of the byte order.
const mark = "\xef\xbb\xbf"

// canonical returns how many bytes at the start of b are complete rows in the
// one form, and how many rows those are.
func canonical(b []byte, width int, limit int64) (n int, rows int64) {
	if width == 0 {
		return 0, 0
	}
	for {
		p := n
		for field := 1; ; field++ {
			if p >= len(b) || b[p] != '"' {
				return n, rows
			}
			end := fieldEnd(b, p)
			if end < 0 || end == len(b) || int64(end-p-2) > limit {
				return n, rows
			}
			p = end + 1
			if b[end] == ',' && field < width {
				continue
			}
			if b[end] == '\n' && field == width {
				break
			}
			return n, rows
		}
		n = p
		rows++
	}
}

// record appends the first row of b to r.out and returns its length in b, or 0
// if more of it has to be read.
func (r *Reader) record(b []byte) (int, error) {
	before := len(r.out)
	p := 0
	for field := 1; ; field++ {
		content, end, err := r.field(b, p)
		if err != nil {
			return 0, err
		}
		if end < 0 {
			r.out = r.out[:before]
			return 0, nil
		}
		if int64(len(content)) > r.o.CellLimit {
			return 0, fmt.Errorf("the value of column %d is longer than %s", field, caisson.Bytes(r.o.CellLimit))
		}
		r.append(content, p < len(b) && b[p] == r.o.Enclosure)
		p = end
		if field > FieldLimit {
			return 0, fmt.Errorf("the row has more than %d values", FieldLimit)
		}
		if p < len(b) && b[p] == r.o.Delimiter {
			r.out = append(r.out, ',')
			p++
			continue
		}
		if r.o.Width == 0 {
			r.o.Width = field
		}
		if field != r.o.Width {
			return 0, r.ragged(field)
		}
		r.out = append(r.out, '\n')
		return p + lineEnd(b[p:]), nil
	}
}

func (r *Reader) ragged(fields int) error {
	return fmt.Errorf("the row has %d %s instead of %d; check the delimiter (%q) and the enclosure (%q)",
		fields, plural(fields, "value"), r.o.Width, r.o.Delimiter, r.o.Enclosure)
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

func lineEnd(b []byte) int {
	switch {
	case len(b) > 0 && b[0] == '\n':
		return 1
	case len(b) > 1 && b[0] == '\r' && b[1] == '\n':
		return 2
	}
	return 0
}

// field returns the text of the field at p, with quotes still doubled, and
// where it ends: at a delimiter, at the end of a line or of everything. An end
// of -1 says that more has to be read.
func (r *Reader) field(b []byte, p int) (content []byte, end int, err error) {
	if p < len(b) && b[p] == r.o.Enclosure {
		return r.enclosed(b, p+1)
	}
	start := p
	for p < len(b) && !r.special[b[p]] {
		p++
	}
	switch {
	case p == len(b) && !r.eof:
		return nil, -1, nil
	case p < len(b) && b[p] == r.o.Enclosure:
		return nil, 0, fmt.Errorf("%q inside of a value that is not enclosed", r.o.Enclosure)
	case p < len(b) && b[p] == '\n' && p > start && b[p-1] == '\r':
		p--
	}
	return b[start:p], p, nil
}

func (r *Reader) enclosed(b []byte, p int) (content []byte, end int, err error) {
	start := p
	for {
		n := bytes.IndexByte(b[p:], r.o.Enclosure)
		if n < 0 {
			if r.eof {
				return nil, 0, fmt.Errorf("a value that begins with %q does not end", r.o.Enclosure)
			}
			return nil, -1, nil
		}
		p += n + 1
		// What follows needs two bytes to be told: CR LF.
		if len(b)-p < 2 && !r.eof {
			return nil, -1, nil
		}
		if p == len(b) || b[p] == r.o.Delimiter || lineEnd(b[p:]) > 0 {
			return b[start : p-1], p, nil
		}
		if b[p] != r.o.Enclosure {
			return nil, 0, fmt.Errorf("text after the %q that ends a value", r.o.Enclosure)
		}
		p++
	}
}

// append appends a field to r.out.
func (r *Reader) append(content []byte, enclosed bool) {
	r.out = append(r.out, '"')
	switch {
	case r.o.Enclosure == '"':
		r.out = append(r.out, content...)
	default:
		if enclosed {
			two := []byte{r.o.Enclosure, r.o.Enclosure}
			content = bytes.ReplaceAll(content, two, two[:1])
		}
		r.out = append(r.out, bytes.ReplaceAll(content, []byte(`"`), []byte(`""`))...)
	}
	r.out = append(r.out, '"')
}

// A Head is the first row of a text.
type Head struct {
	Columns []string
	Size    int64 // bytes that it takes in the text
	Lines   int64 // lines that it takes
}

// ReadHead reads the first row of src, and may read more of it. Errors: io.EOF
// if there is none.
func ReadHead(src io.Reader, o Options) (*Head, error) {
	if o.CellLimit <= 0 || o.CellLimit > nameLimit {
		o.CellLimit = nameLimit
	}
	r := NewReader(src, o)
	for r.err == nil {
		b := r.buf[r.pos:r.end]
		if len(b) == 0 {
			r.fill()
			continue
		}
		n, err := r.record(b)
		if err != nil {
			r.fail(r.line, err)
			break
		}
		if n == 0 {
			r.fill()
			continue
		}
		if r.text(b[:n]); r.err == nil {
			return &Head{Columns: Values(r.out), Size: r.size, Lines: r.line - o.Skip}, nil
		}
	}
	return nil, r.err
}
