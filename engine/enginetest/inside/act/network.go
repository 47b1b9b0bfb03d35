package act

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// connect NETWORK ADDRESS fails where nothing answers.
func (p *program) connect(args []string) error {
	conn, err := p.Dial(args[0], args[1])
	if err != nil {
		return err
	}
	return conn.Close()
}

const (
	// answerMax is how much of an answer is printed.
	answerMax = 64 << 10
	// answerTime is how long an answer to a packet may take.
	answerTime = 3 * time.Second
)

// ask NETWORK ADDRESS TEXT sends a text, with the values of variables in place of
// ${NAME}, and prints what comes back, as whole lines: of tcp until the other
// side closes, of udp one packet.
func (p *program) ask(args []string) error {
	conn, err := p.Dial(args[0], args[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	text, err := p.expand(args[2])
	if err != nil {
		return err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	answer := make([]byte, answerMax)
	n := 0
	if args[0] == "udp" {
		if err := conn.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
			return err
		}
		n, err = conn.Read(answer)
	} else if n, err = io.ReadFull(conn, answer); err == io.ErrUnexpectedEOF || err == io.EOF {
		err = nil
	}
	if err != nil {
		return err
	}
	p.answers = append(p.answers, answer[:n]) // for hunt
	return p.say([]string{strings.TrimSuffix(string(answer[:n]), "\n")})
}

// expand puts the values of variables in place of their names.
func (p *program) expand(text string) (string, error) {
	if !strings.Contains(text, "${") {
		return text, nil
	}
	facts, err := p.Facts()
	if err != nil {
		return "", err
	}
	for _, kv := range facts.Env {
		name, value, _ := strings.Cut(kv, "=")
		text = strings.ReplaceAll(text, "${"+name+"}", value)
	}
	return text, nil
}

// rawTime is how long raw waits for what comes back.
const rawTime = time.Second

// raw ADDRESS HEX sends bytes by tcp and prints those that come back, until the
// other side closes or for a while, in hexadecimal digits after "raw ".
func (p *program) raw(args []string) error {
	sent, err := hex.DecodeString(args[1])
	if err != nil {
		return err
	}
	conn, err := p.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(rawTime)); err != nil {
		return err
	}
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	// A connection that is reset has said enough before.
	got, _ := io.ReadAll(io.LimitReader(conn, answerMax))
	return p.say([]string{"raw", hex.EncodeToString(got)})
}

// pour ADDRESS SIZE SEED sends that many bytes of Pattern(SEED) by tcp, then
// their end, and prints the number of those that come back meanwhile, and their
// sha256.
func (p *program) pour(args []string) error {
	size, err := parseSize(args[1])
	if err != nil {
		return err
	}
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	conn, err := p.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{conn}, io.LimitReader(Pattern(seed), size), make([]byte, 32<<10))
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		sent <- err
	}()
	sum := sha256.New()
	n, err := io.Copy(sum, conn)
	if err != nil {
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	return p.say([]string{fmt.Sprintf("%d %x", n, sum.Sum(nil))})
}

// resolve NAME prints the addresses of a name, in order.
func (p *program) resolve(args []string) error {
	addresses, err := p.Resolve(args[0])
	if err != nil {
		return err
	}
	slices.Sort(addresses)
	return p.say(slices.Compact(addresses))
}

// steal NETWORK ADDRESS listens where somebody else may, and answers whoever
// comes with "stolen" while other commands follow.
func (p *program) steal(args []string) error { return p.Steal(args[0], args[1]) }

// Rob answers every packet with a word until the socket is closed.
func Rob(c net.PacketConn, word string) {
	buf := make([]byte, 1<<10)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo([]byte(word), from)
	}
}
