package act

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
)

// mask hides the pattern that hunt looks for, so that the looking itself puts
// it nowhere.
const mask = 0x55

// Masked returns the argument by which hunt looks for a text.
func Masked(text string) string {
	hidden := []byte(text)
	for i := range hidden {
		hidden[i] ^= mask
	}
	return hex.EncodeToString(hidden)
}

// hunt MASKED PATH... looks for a text that it must not know: in everything that
// was answered, in the program's own memory, in what it sees of other
// processes, and in files and folders. It prints "hunt N", and where: N is in how
// many places it was found.
func (p *program) hunt(args []string) error {
	masked, err := hex.DecodeString(args[0])
	if err != nil || len(masked) == 0 {
		return errors.Join(err, errors.New("no pattern"))
	}
	var found []string
	look := func(where string, data []byte) {
		if holds(data, masked) {
			found = append(found, where)
		}
	}
	for i, answer := range p.answers {
		look(fmt.Sprint("answer ", i), answer)
	}
	facts, err := p.Facts()
	if err != nil {
		return err
	}
	for pid := range facts.Processes {
		for _, name := range []string{"environ", "cmdline"} {
			p.huntFile(path.Join("/proc", strconv.Itoa(pid), name), look)
		}
	}
	for _, kv := range facts.Env {
		look("environment", []byte(kv))
	}
	for _, place := range args[1:] {
		p.huntBelow(place, 0, look)
	}
	memory, err := p.Memory(args[0])
	if err != nil {
		return err
	}
	found = append(found, memory...)
	return p.say(append([]string{"hunt", strconv.Itoa(len(found))}, found...))
}

// holds reports whether a text is in data, given what it is masked with.
func holds(data, masked []byte) bool {
	for i := 0; i+len(masked) <= len(data); i++ {
		n := 0
		for n < len(masked) && data[i+n]^mask == masked[n] {
			n++
		}
		if n == len(masked) {
			return true
		}
	}
	return false
}

// huntMax is how much of one file is looked at.
const huntMax = 4 << 20

func (p *program) huntFile(name string, look func(string, []byte)) {
	f, err := p.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, huntMax))
	look(name, data)
}

// huntBelow looks at a file, or at those below a folder.
func (p *program) huntBelow(name string, depth int, look func(string, []byte)) {
	const deepest = 8
	info, err := p.Lstat(name)
	switch {
	case err != nil || depth > deepest:
	case info.Mode().IsRegular():
		p.huntFile(name, look)
	case info.IsDir():
		entries, _ := p.ReadDir(name)
		for _, e := range entries {
			p.huntBelow(path.Join(name, e.Name()), depth+1, look)
		}
	}
}

// leak NAME prints the value of a variable in all forms in which programs do.
func (p *program) leak(args []string) error {
	value, err := p.expand("${" + args[0] + "}")
	if err != nil {
		return err
	}
	quoted, err := json.Marshal(value)
	if err != nil {
		return err
	}
	forms := []string{
		value, "x" + value + "x", string(quoted), url.QueryEscape(value), url.PathEscape(value), hex.EncodeToString([]byte(value)),
		strings.ToUpper(hex.EncodeToString([]byte(value))),
	}
	for _, before := range []string{"", "u", "us", "user:"} {
		plain := []byte(before + value)
		forms = append(forms, base64.StdEncoding.EncodeToString(plain), base64.RawStdEncoding.EncodeToString(plain),
			base64.URLEncoding.EncodeToString(plain), base64.RawURLEncoding.EncodeToString(plain))
	}
	for _, width := range []int{64, 76} { // as openssl and base64 do
		forms = append(forms, wrapped(base64.StdEncoding.EncodeToString([]byte(value)), width))
	}
	for _, form := range forms {
		if err := p.say([]string{form}); err != nil {
			return err
		}
		if err := p.split([]string{form}); err != nil {
			return err
		}
		if err := p.warn([]string{form}); err != nil {
			return err
		}
	}
	return nil
}

// wrapped breaks a text into lines.
func wrapped(text string, width int) string {
	var lines []string
	for len(text) > width {
		lines, text = append(lines, text[:width]), text[width:]
	}
	return strings.Join(append(lines, text), "\n")
}
