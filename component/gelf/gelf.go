// Package gelf listens for the log messages of components that send GELF
// (Graylog Extended Log Format) over TCP, UDP or HTTP.
package gelf

import (
	"net"
	"time"

	"github.com/caissonrun/caisson"
)

// The ways to send, as in a component's gelf_server_type.
const (
	TCP  = "tcp"
	UDP  = "udp"
	HTTP = "http"
)

// A Level is how bad it is, as in syslog.
type Level int

// The levels.
const (
	Emergency Level = iota
	Alert
	Critical
	Error
	Warning
	Notice
	Info
	Debug
)

// A Message is one log message.
type Message struct {
	Time   time.Time // when it arrived
	Host   string
	Level  Level
	Text   string         // short_message
	Full   string         // full_message
	Stamp  float64        // timestamp, seconds since 1970, as the sender has it
	Fields map[string]any // what else it has; of "_x" the value, decoded if it is JSON in a text
	// Bad says that what was sent is no message; Text says why, and Level is Error.
	Bad bool
}

// Options says how to listen.
type Options struct {
	// Type is TCP, UDP or HTTP; empty: TCP.
	Type string
	// Message is called for each message, by one goroutine at a time. While it
	// blocks, senders wait (TCP, HTTP) or lose messages (UDP). Never nil.
	Message func(*Message)
	// MaxMessage is how long a message may be, in bytes, before and after
	// decompression; 0: 200 KiB.
	MaxMessage int
	// MaxConns is how many senders may be connected; 0: 64.
	MaxConns int
}

// A Listener takes messages until it is closed.
type Listener struct{}

// Listen listens on address, such as "127.0.0.1:0".
func Listen(address string, opts Options) (*Listener, error) { return nil, caisson.ErrUnsupported }

// Serve listens on a socket that the caller has opened, perhaps in another
// network namespace: a net.Listener for TCP and HTTP, a net.PacketConn for UDP.
// The Listener owns it from then on.
func Serve(stream net.Listener, packets net.PacketConn, opts Options) (*Listener, error) {
	return nil, caisson.ErrUnsupported
}

// Addr returns where it listens.
func (l *Listener) Addr() net.Addr { return nil }

// Close stops listening, and returns once all messages that had arrived are
// given to Options.Message.
func (l *Listener) Close() error { return nil }
