package act

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson/internal/rfb"
)

// A program is one run of the inside program.
type program struct {
	World
	signals  map[int]<-chan int
	children []Child
	held     []io.Closer // files that stay open
	answers  [][]byte    // of ask
	screens  map[string]*rfb.Screen
}

// A command is what a word does with the words after it.
type command struct {
	args int // how many it needs at least
	run  func(p *program, args []string) error
}

// table returns the commands by name. What each does is told where it is
// defined.
func table() map[string]command {
	return map[string]command{
		"say":      {0, (*program).say},
		"warn":     {1, (*program).warn},
		"print":    {3, (*program).print},
		"split":    {1, (*program).split},
		"lengths":  {2, (*program).lengths},
		"exit":     {1, (*program).exit},
		"tick":     {0, (*program).tick},
		"count":    {1, (*program).count},
		"sleep":    {1, (*program).sleep},
		"hold":     {0, (*program).hold},
		"cat":      {0, (*program).cat},
		"hash":     {0, (*program).hash},
		"spin":     {1, (*program).spin},
		"alloc":    {1, (*program).alloc},
		"closefd":  {1, (*program).closeFDs},
		"try":      {1, (*program).try},
		"report":   {0, (*program).report},
		"attempt":  {1, (*program).attempt},
		"connect":  {2, (*program).connect},
		"ask":      {3, (*program).ask},
		"raw":      {2, (*program).raw},
		"hunt":     {1, (*program).hunt},
		"leak":     {1, (*program).leak},
		"pour":     {3, (*program).pour},
		"resolve":  {1, (*program).resolve},
		"steal":    {2, (*program).steal},
		"serve":    {2, (*program).serve},
		"loopback": {0, (*program).loopback},
		"show":     {3, (*program).show},

		"trap":   {1, (*program).trap},
		"ignore": {1, (*program).ignore},
		"await":  {1, (*program).await},
		"first":  {1, (*program).first},
		"raise":  {1, (*program).raise},
		"spawn":  {1, (*program).spawn},
		"reap":   {0, (*program).reap},
		"forks":  {1, (*program).forks},
		"tty":    {0, (*program).tty},
		"resize": {2, (*program).resized},

		"write":    {2, (*program).write},
		"append":   {2, (*program).append},
		"fill":     {2, (*program).fill},
		"read":     {1, (*program).read},
		"list":     {1, (*program).list},
		"walk":     {1, (*program).walk},
		"sum":      {1, (*program).sum},
		"mkdir":    {1, (*program).mkdir},
		"remove":   {1, (*program).remove},
		"rename":   {2, (*program).rename},
		"chmod":    {2, (*program).chmod},
		"chdir":    {1, (*program).chdir},
		"hardlink": {2, (*program).hardlink},
		"symlink":  {2, (*program).symlink},
		"fifo":     {1, (*program).fifo},
		"lock":     {1, (*program).lock},
		"open":     {2, (*program).open},
		"many":     {2, (*program).many},
		"deep":     {2, (*program).deep},
		"flip":     {3, (*program).flip},
		"grow":     {1, (*program).grow},
		"churn":    {1, (*program).churn},
	}
}

func (p *program) run(words []string) error {
	c, ok := table()[words[0]]
	if !ok {
		return errors.New("no such command")
	}
	if len(words)-1 < c.args {
		return fmt.Errorf("needs %d arguments", c.args)
	}
	return c.run(p, words[1:])
}

// say prints a line on stdout.
func (p *program) say(args []string) error {
	_, err := fmt.Fprintln(p.Stdout(), strings.Join(args, " "))
	return err
}

// warn prints a line on stderr.
func (p *program) warn(args []string) error {
	_, err := fmt.Fprintln(p.Stderr(), strings.Join(args, " "))
	return err
}

// print STREAM SIZE SEED writes that many bytes of Pattern(SEED).
func (p *program) print(args []string) error {
	out := p.Stdout()
	if args[0] == "stderr" {
		out = p.Stderr()
	}
	size, err := parseSize(args[1])
	if err != nil {
		return err
	}
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, io.LimitReader(Pattern(seed), size), make([]byte, 32<<10))
	return err
}

// split TEXT prints a line on stdout byte by byte.
func (p *program) split(args []string) error {
	for i := range len(args[0]) {
		if _, err := io.WriteString(p.Stdout(), args[0][i:i+1]); err != nil {
			return err
		}
	}
	_, err := io.WriteString(p.Stdout(), "\n")
	return err
}

// lengths NAME PATH prints how long a variable and a file are, for values that
// must not be printed.
func (p *program) lengths(args []string) error {
	facts, err := p.Facts()
	if err != nil {
		return err
	}
	value := 0
	for _, kv := range facts.Env {
		if text, ok := strings.CutPrefix(kv, args[0]+"="); ok {
			value = len(text)
		}
	}
	f, err := p.OpenFile(args[1], os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(struct{ io.Reader }{f})
	if err != nil {
		return err
	}
	return p.say([]string{strconv.Itoa(value), strconv.Itoa(len(data))})
}

// exit ends the program with a code.
func (p *program) exit(args []string) error {
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return &exit{code}
}

// tick prints dots for ever.
func (p *program) tick([]string) error {
	for {
		if _, err := io.WriteString(p.Stdout(), "."); err != nil {
			return err
		}
		p.Sleep(poll)
	}
}

// count SIGNAL prints the numbers from 0 on, until a trapped signal comes.
func (p *program) count(args []string) error {
	stop, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		if err := p.say([]string{strconv.Itoa(n)}); err != nil {
			return err
		}
		select {
		case <-p.signals[stop]:
			return nil
		default:
			p.Sleep(poll)
		}
	}
}

// sleep does nothing for a time.
func (p *program) sleep(args []string) error {
	d, err := time.ParseDuration(args[0])
	if err == nil {
		p.Sleep(d)
	}
	return err
}

// hold never ends by itself.
func (p *program) hold([]string) error {
	for {
		p.Sleep(time.Hour)
	}
}

// cat copies stdin to stdout.
func (p *program) cat([]string) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{p.Stdout()}, struct{ io.Reader }{p.Stdin()}, make([]byte, 32<<10))
	return err
}

// hash prints the number of bytes on stdin and their sha256.
func (p *program) hash([]string) error {
	sum := sha256.New()
	n, err := io.Copy(sum, p.Stdin())
	if err == nil {
		_, err = fmt.Fprintf(p.Stdout(), "%d %x\n", n, sum.Sum(nil))
	}
	return err
}

// spin uses processor time for a duration.
func (p *program) spin(args []string) error {
	d, err := time.ParseDuration(args[0])
	if err == nil {
		p.Spin(d)
	}
	return err
}

// alloc uses that much more memory.
func (p *program) alloc(args []string) error {
	n, err := parseSize(args[0])
	if err != nil {
		return err
	}
	return p.Alloc(n)
}

// closefd closes descriptors.
func (p *program) closeFDs(args []string) error {
	for _, arg := range args {
		fd, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		if err := p.CloseFD(fd); err != nil {
			return err
		}
	}
	return nil
}

// try runs a command and prints "COMMAND ok", or its error's name instead of
// failing: "read EACCES".
func (p *program) try(args []string) error {
	err := p.run(args)
	var end *exit
	if errors.As(err, &end) {
		return err
	}
	return p.say([]string{args[0], ErrorName(err)})
}

// report prints the Facts as one line of JSON.
func (p *program) report([]string) error {
	facts, err := p.Facts()
	if err != nil {
		return err
	}
	return json.NewEncoder(p.Stdout()).Encode(facts)
}

// attempt tries what isolation forbids and prints a line for each, such as
// "mount EPERM".
func (p *program) attempt(args []string) error {
	for _, name := range args {
		if err := p.say([]string{name, ErrorName(p.Attempt(name))}); err != nil {
			return err
		}
	}
	return nil
}

// serve PORT WORD answers connections with the word while other commands follow.
func (p *program) serve(args []string) error {
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	return p.Serve(port, args[1])
}

// Answer answers every connection with a word until the listener is closed.
func Answer(l net.Listener, word string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_, _ = io.WriteString(conn, word)
		}()
	}
}

// loopback connects to itself by the loopback device.
func (p *program) loopback([]string) error { return p.Loopback() }

func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "kmg")
	n, err := strconv.ParseInt(digits, 10, 64)
	switch s[len(digits):] {
	case "k":
		n <<= 10
	case "m":
		n <<= 20
	case "g":
		n <<= 30
	}
	return n, err
}
