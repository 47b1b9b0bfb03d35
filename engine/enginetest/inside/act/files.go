package act

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// write PATH TEXT makes a file.
func (p *program) write(args []string) error {
	return p.put(args, os.O_TRUNC)
}

// append PATH TEXT adds to a file.
func (p *program) append(args []string) error {
	return p.put(args, os.O_APPEND)
}

func (p *program) put(args []string, flag int) error {
	f, err := p.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|flag, 0o644)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, args[1])
	return errors.Join(err, f.Close())
}

// fill PATH SIZE writes that many zeros and prints how many there was room
// for: "fill 1048576 ENOSPC".
func (p *program) fill(args []string) error {
	size, err := parseSize(args[1])
	if err != nil {
		return err
	}
	f, err := p.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	var total int64
	for total < size && err == nil {
		var n int
		n, err = f.Write(buf[:min(int64(len(buf)), size-total)])
		total += int64(n)
	}
	return p.say([]string{"fill", strconv.FormatInt(total, 10), ErrorName(err)})
}

// read PATH prints a file.
func (p *program) read(args []string) error {
	f, err := p.OpenFile(args[0], os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(struct{ io.Writer }{p.Stdout()}, struct{ io.Reader }{f})
	return err
}

// list PATH prints the names in a folder, a line each.
func (p *program) list(args []string) error {
	entries, err := p.ReadDir(args[0])
	for _, e := range entries {
		if err := p.say([]string{e.Name()}); err != nil {
			return err
		}
	}
	return err
}

// walk PATH prints everything below a folder, a line each: the name in quotes,
// the type and permissions, and the size of a file.
func (p *program) walk(args []string) error { return p.walkBelow(args[0], "") }

func (p *program) walkBelow(top, below string) error {
	entries, err := p.ReadDir(path.Join(top, below))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(below, e.Name())
		info, err := p.Lstat(path.Join(top, name))
		if err != nil {
			return err
		}
		words := []string{strconv.QuoteToASCII(name), info.Mode().String()}
		if info.Mode().IsRegular() {
			words = append(words, strconv.FormatInt(info.Size(), 10))
		}
		if err := p.say(words); err != nil {
			return err
		}
		if info.IsDir() {
			if err := p.walkBelow(top, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// sum PATH prints the SHA-256 of a file's contents.
func (p *program) sum(args []string) error {
	f, err := p.OpenFile(args[0], os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, f); err != nil {
		return err
	}
	return p.say([]string{hex.EncodeToString(digest.Sum(nil))})
}

// mkdir PATH makes a folder and those above it.
func (p *program) mkdir(args []string) error {
	made := ""
	for i, part := range strings.Split(args[0], "/") {
		if i > 0 {
			made += "/"
		}
		made += part
		if part == "" {
			continue
		}
		if err := p.Mkdir(made, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			if info, statErr := p.Lstat(made); statErr != nil || !info.IsDir() {
				return err
			}
		}
	}
	return nil
}

// remove PATH removes a file or an empty folder.
func (p *program) remove(args []string) error { return p.Remove(args[0]) }

// rename OLD NEW.
func (p *program) rename(args []string) error { return p.Rename(args[0], args[1]) }

// chmod MODE PATH, the mode in octal digits.
func (p *program) chmod(args []string) error {
	mode, err := strconv.ParseUint(args[0], 8, 12)
	if err != nil {
		return err
	}
	return p.Chmod(args[1], fs.FileMode(mode))
}

// chdir PATH changes the current folder.
func (p *program) chdir(args []string) error { return p.Chdir(args[0]) }

// hardlink OLD NEW.
func (p *program) hardlink(args []string) error { return p.Link(args[0], args[1]) }

// symlink TARGET PATH.
func (p *program) symlink(args []string) error { return p.Symlink(args[0], args[1]) }

// fifo PATH makes a named pipe.
func (p *program) fifo(args []string) error { return p.Mkfifo(args[0]) }

// lock PATH holds a lock on a file until the process ends, by which an
// observer can tell that it has.
func (p *program) lock(args []string) error { return p.Lock(args[0]) }

// open PATH N opens a file up to N times and prints how often it could:
// "open 61 EMFILE".
func (p *program) open(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for i := range n {
		f, err := p.OpenFile(args[0], os.O_RDONLY, 0)
		if err != nil {
			for _, f := range p.held {
				f.Close()
			}
			return p.say([]string{"open", strconv.Itoa(i), ErrorName(err)})
		}
		p.held = append(p.held, f)
	}
	return p.say([]string{"open", args[1], "ok"})
}

// many DIR N makes N small files in a folder.
func (p *program) many(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for i := range n {
		if err := p.write([]string{fmt.Sprintf("%s/%06d", args[0], i), strconv.Itoa(i)}); err != nil {
			return err
		}
	}
	return nil
}

// deep DIR N makes N folders, each in the one before.
func (p *program) deep(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := p.Chdir(args[0]); err != nil {
		return err
	}
	for range n {
		if err := p.Mkdir("d", 0o755); err != nil {
			return err
		}
		if err := p.Chdir("d"); err != nil {
			return err
		}
	}
	return nil
}

// flip PATH TEXT TARGET makes PATH a file with TEXT and a link to TARGET, in
// turn and for ever. Each change is one rename, so that PATH is always there.
func (p *program) flip(args []string) error {
	path, text, target := args[0], args[1], args[2]
	for {
		if err := p.write([]string{path + ".file", text}); err != nil {
			return err
		}
		if err := p.Rename(path+".file", path); err != nil {
			return err
		}
		if err := p.Symlink(target, path+".link"); err != nil {
			return err
		}
		if err := p.Rename(path+".link", path); err != nil {
			return err
		}
	}
}

// grow PATH appends to a file for ever.
func (p *program) grow(args []string) error {
	f, err := p.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		if _, err := io.WriteString(f, strings.Repeat("x", 100)); err != nil {
			return err
		}
		p.Sleep(poll)
	}
}

// churn PATH makes a file and removes it again, for ever.
func (p *program) churn(args []string) error {
	for {
		if err := p.write([]string{args[0], strings.Repeat("x", 10000)}); err != nil {
			return err
		}
		if err := p.Remove(args[0]); err != nil {
			return err
		}
	}
}
