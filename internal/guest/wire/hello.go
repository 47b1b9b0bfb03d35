package wire

import (
	"encoding/binary"
	"errors"
)

// Version is the version of the protocol that this package speaks.
const Version = 1

// A Nonce is chosen anew by the host for each session. No output of an earlier one
// holds it.
type Nonce [16]byte

// A Hello begins a session. The host repeats it until it is answered.
type Hello struct {
	Nonce           Nonce
	Lowest, Highest uint16 // versions that the host speaks
}

// A Welcome answers it.
type Welcome struct {
	Nonce           Nonce  // that of the Hello
	Version         uint16 // that is spoken from now on; 0: there is none in common
	Lowest, Highest uint16 // versions that the agent speaks
	// Boot is chosen by the agent when it starts, and again when it is told that it
	// is a copy: who sees another one talks to another agent.
	Boot Nonce
}

var errGreeting = errors.New("a greeting of the wrong size")

// Frame returns the greeting as a frame.
func (h *Hello) Frame() *Frame {
	body := binary.LittleEndian.AppendUint16(h.Nonce[:len(h.Nonce):len(h.Nonce)], h.Lowest)
	return &Frame{Kind: KindHello, Body: binary.LittleEndian.AppendUint16(body, h.Highest)}
}

// ParseHello reads the body of a KindHello. One of a later version may be longer.
func ParseHello(body []byte) (h Hello, err error) {
	if len(body) < 20 {
		return h, errGreeting
	}
	copy(h.Nonce[:], body)
	h.Lowest, h.Highest = binary.LittleEndian.Uint16(body[16:]), binary.LittleEndian.Uint16(body[18:])
	return h, nil
}

// Answer returns the welcome to a hello, by an agent that speaks Version.
func (h *Hello) Answer(boot Nonce) *Welcome {
	w := &Welcome{Nonce: h.Nonce, Lowest: Version, Highest: Version, Boot: boot}
	if h.Lowest <= Version && Version <= h.Highest {
		w.Version = Version
	}
	return w
}

// Frame returns the greeting as a frame.
func (w *Welcome) Frame() *Frame {
	body := w.Nonce[:len(w.Nonce):len(w.Nonce)]
	for _, n := range []uint16{w.Version, w.Lowest, w.Highest} {
		body = binary.LittleEndian.AppendUint16(body, n)
	}
	return &Frame{Kind: KindWelcome, Body: append(body, w.Boot[:]...)}
}

// ParseWelcome reads the body of a KindWelcome. One of a later version may be
// longer.
func ParseWelcome(body []byte) (w Welcome, err error) {
	if len(body) < 38 {
		return w, errGreeting
	}
	copy(w.Nonce[:], body)
	w.Version = binary.LittleEndian.Uint16(body[16:])
	w.Lowest, w.Highest = binary.LittleEndian.Uint16(body[18:]), binary.LittleEndian.Uint16(body[20:])
	copy(w.Boot[:], body[22:])
	return w, nil
}
