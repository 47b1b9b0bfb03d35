package mem

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
)

// A shell runs a script of simple commands, one to a line or separated by
// ";", "&&" and "||"; "&" leaves one running. It knows '...', "..." and \ as
// quotes, $NAME, ${NAME} and $?, NAME=VALUE, and > and >> FILE. Commands are
// the programs of the sandbox and cd, exit, export and ":".
type shell struct {
	p      *Proc
	status int
	exited bool
}

// runShell is the program sh.
func runShell(p *Proc) int {
	s := &shell{p: p}
	if p.arg(1) == "-c" {
		s.run(p.arg(2))
		return s.status
	}
	for lines := bufio.NewScanner(p.Stdin()); !s.exited && lines.Scan(); {
		s.run(lines.Text())
	}
	return s.status
}

// A token is a word, or an operator.
type token struct {
	text string
	op   bool
}

// run runs a script until it ends or exits.
func (s *shell) run(script string) {
	var words []string
	skip := false // the last && or || leaves out the next command
	for tokens := (&lexer{s: s, rest: script}); !s.exited; {
		t, ok := tokens.next()
		if ok && (!t.op || t.text == ">" || t.text == ">>") {
			words = append(words, t.word())
			continue
		}
		if len(words) > 0 && !skip {
			s.command(words, t.op && t.text == "&")
		}
		words = nil
		if !ok {
			return
		}
		switch t.text {
		case "&&":
			skip = s.status != 0
		case "||":
			skip = s.status == 0
		default:
			skip = false
		}
	}
}

// redirect marks an operator among the words of a command: no word has NUL.
const redirect = "\x00"

func (t token) word() string {
	if t.op {
		return redirect + t.text
	}
	return t.text
}

// command runs one simple command.
func (s *shell) command(words []string, background bool) {
	for len(words) > 0 && assignment(words[0]) {
		s.p.env = addEnv(s.p.env, map[string]string{before(words[0]): after(words[0])})
		words = words[1:]
	}
	var args []string
	child := s.p.box.newProc(nil, s.p.env, s.p.dir)
	child.stdin, child.stdout, child.stderr = s.p.stdin, s.p.stdout, s.p.stderr
	child.tty, child.session = s.p.tty, s.p.session
	for i := 0; i < len(words); i++ {
		op, isOp := strings.CutPrefix(words[i], redirect)
		if !isOp {
			args = append(args, words[i])
			continue
		}
		if i++; i == len(words) {
			s.fail("%s: no file", op)
			return
		}
		if err := s.redirect(child, op, words[i]); err != nil {
			s.fail("%v", err)
			return
		}
	}
	if len(args) > 0 && !s.builtin(args) {
		child.args = args
		s.spawn(child, background)
	}
}

func (s *shell) redirect(child *Proc, op, name string) error {
	flag := os.O_TRUNC
	if op == ">>" {
		flag = os.O_APPEND
	}
	f, err := s.p.OpenFile(name, os.O_WRONLY|os.O_CREATE|flag, 0o644)
	if err != nil {
		return err
	}
	child.stdout = f.Write
	child.locks = append(child.locks, f)
	return nil
}

// builtin runs what changes the shell itself.
func (s *shell) builtin(args []string) bool {
	s.p.checkpoint()
	switch args[0] {
	case "exit":
		s.exited = true
		if len(args) > 1 {
			code, err := strconv.Atoi(args[1])
			if err != nil {
				s.fail("exit: %v", err)
				return true
			}
			s.status = code
		}
		return true
	case "cd":
		dir := caisson.WorkDir
		if len(args) > 1 {
			dir = args[1]
		}
		s.status = s.p.report(s.p.Chdir(dir))
	case ":":
		s.status = 0
	case "export":
		for _, arg := range args[1:] {
			if assignment(arg) {
				s.p.env = addEnv(s.p.env, map[string]string{before(arg): after(arg)})
			}
		}
	default:
		return false
	}
	return true
}

// spawn runs a program and waits for it, unless it runs in the background.
func (s *shell) spawn(child *Proc, background bool) {
	b := s.p.box
	b.mu.Lock()
	if most := b.spec.Limits.PIDs; most > 0 && int64(len(b.procs)) >= most {
		b.mu.Unlock()
		s.fail("fork: no more processes")
		return
	}
	b.run(child)
	b.mu.Unlock()
	if background {
		s.status = 0
		return
	}
	code, signal := s.p.Wait(child)
	if signal != 0 {
		code = 128 + signal
	}
	if child.message != "" {
		fmt.Fprintf(s.p.Stderr(), "sh: %s\n", child.message)
	}
	s.status = code
}

func (s *shell) fail(format string, args ...any) {
	fmt.Fprintf(s.p.Stderr(), "sh: "+format+"\n", args...)
	s.status = 2
}

// assignment reports whether a word is NAME=VALUE.
func assignment(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	return ok && name != "" && strings.Trim(name, nameChars) == ""
}

func before(word string) string { name, _, _ := strings.Cut(word, "="); return name }
func after(word string) string  { _, value, _ := strings.Cut(word, "="); return value }

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

// A lexer cuts a script into tokens, with quotes and variables replaced.
type lexer struct {
	s    *shell
	rest string
}

// next returns the next token, or false at the end. A newline is ";".
func (l *lexer) next() (token, bool) {
	l.rest = strings.TrimLeft(l.rest, " \t\r")
	if strings.HasPrefix(l.rest, "#") {
		_, l.rest, _ = strings.Cut(l.rest, "\n")
		return token{";", true}, true
	}
	if l.rest == "" {
		return token{}, false
	}
	for _, op := range []string{"&&", "||", ">>", ">", ";", "&", "\n"} {
		if rest, ok := strings.CutPrefix(l.rest, op); ok {
			l.rest = rest
			if op == "\n" {
				op = ";"
			}
			return token{op, true}, true
		}
	}
	return token{text: l.word()}, true
}

// word takes one word off the rest.
func (l *lexer) word() string {
	var word strings.Builder
	for l.rest != "" && !strings.ContainsRune(" \t\r\n;&|>", rune(l.rest[0])) {
		c := l.rest[0]
		l.rest = l.rest[1:]
		switch c {
		case '\'':
			text, rest, _ := strings.Cut(l.rest, "'")
			word.WriteString(text)
			l.rest = rest
		case '"':
			l.quoted(&word)
		case '\\':
			if l.rest != "" {
				word.WriteByte(l.rest[0])
				l.rest = l.rest[1:]
			}
		case '$':
			word.WriteString(l.variable())
		default:
			word.WriteByte(c)
		}
	}
	return word.String()
}

// quoted takes what stands between double quotes.
func (l *lexer) quoted(word *strings.Builder) {
	for l.rest != "" {
		c := l.rest[0]
		l.rest = l.rest[1:]
		switch {
		case c == '"':
			return
		case c == '\\' && l.rest != "" && strings.ContainsRune("\"\\$", rune(l.rest[0])):
			word.WriteByte(l.rest[0])
			l.rest = l.rest[1:]
		case c == '$':
			word.WriteString(l.variable())
		default:
			word.WriteByte(c)
		}
	}
}

// variable takes the name after a "$" and returns its value.
func (l *lexer) variable() string {
	if rest, ok := strings.CutPrefix(l.rest, "?"); ok {
		l.rest = rest
		return strconv.Itoa(l.s.status)
	}
	if rest, ok := strings.CutPrefix(l.rest, "{"); ok {
		name, after, _ := strings.Cut(rest, "}")
		l.rest = after
		return l.s.p.Getenv(name)
	}
	name := l.rest[:len(l.rest)-len(strings.TrimLeft(l.rest, nameChars))]
	l.rest = l.rest[len(name):]
	if name == "" {
		return "$"
	}
	return l.s.p.Getenv(name)
}
