package gelf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
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

var levels = [...]struct {
	name  string
	value int
}{
	{"emergency", 600},
	{"alert", 550},
	{"critical", 500},
	{"error", 400},
	{"warning", 300},
	{"notice", 250},
	{"info", 200},
	{"debug", 100},
}

// String returns the level's name, such as "warning".
func (l Level) String() string {
	if l < Emergency || l > Debug {
		return "level " + strconv.Itoa(int(l))
	}
	return levels[l].name
}

// Verbosity returns the number by which a component's logging.verbosity knows
// the level: from 100 for Debug to 600 for Emergency.
func (l Level) Verbosity() int { return levels[min(max(l, Emergency), Debug)].value }

// A Message is one log message.
type Message struct {
	Time  time.Time // when it arrived
	Host  string
	Level Level
	Text  string  // short_message
	Full  string  // full_message
	Stamp float64 // timestamp as the sender has it: seconds since 1970
	// Fields is what else it has. Of a field "_x" it is the value, decoded if it
	// is JSON in a text. Numbers are json.Number.
	Fields map[string]any
	// Bad says that what was sent is no message; Text says why, and Level is
	// Error.
	Bad bool
}

// bad is what stands for data that is no message.
func bad(data []byte, format string, args ...any) *Message {
	text := "not a GELF message: " + fmt.Sprintf(format, args...)
	if len(data) > 0 {
		text += ": " + excerpt(data)
	}
	return &Message{Level: Error, Text: text, Bad: true}
}

// excerpt returns the beginning of data, quoted.
func excerpt(data []byte) string {
	const most = 200
	if len(data) > most {
		return strconv.Quote(string(data[:most])) + "..."
	}
	return strconv.Quote(string(data))
}

// parse reads a message. Keys that are missing, or of another type, are an
// error.
func parse(data []byte) (*Message, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var all map[string]any
	if err := dec.Decode(&all); err != nil {
		return nil, errors.New("it can't be parsed as a JSON object")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the JSON object")
	}
	m := &Message{}
	var err error
	if m.Host, err = text(all, "host"); err != nil {
		return nil, err
	}
	if m.Text, err = text(all, "short_message"); err != nil {
		return nil, err
	}
	if m.Stamp, err = number(all, "timestamp"); err != nil {
		return nil, err
	}
	level, err := number(all, "level")
	if m.Level = Level(level); err != nil || float64(m.Level) != level || m.Level < Emergency || m.Level > Debug {
		return nil, errors.New("level must be a number from 0 to 7")
	}
	m.Full, _ = all["full_message"].(string)
	m.Fields = fields(all)
	return m, nil
}

// text returns a key's value, which must be a text that is not empty.
func text(all map[string]any, key string) (string, error) {
	s, _ := all[key].(string)
	if s == "" {
		return "", fmt.Errorf("%s is missing", key)
	}
	return s, nil
}

// number returns a key's value, which may be written as a text.
func number(all map[string]any, key string) (float64, error) {
	var digits string
	switch v := all[key].(type) {
	case json.Number:
		digits = v.String()
	case string:
		digits = v
	default:
		return 0, fmt.Errorf("%s is missing", key)
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0, fmt.Errorf("%s must be a number", key)
	}
	return f, nil
}

// fields returns what is not in the Message already.
func fields(all map[string]any) map[string]any {
	for _, key := range []string{"host", "short_message", "timestamp", "level", "full_message", "version"} {
		delete(all, key)
	}
	for key, value := range all {
		if s, ok := value.(string); ok && strings.HasPrefix(key, "_") {
			all[key] = decoded(s)
		}
	}
	return all
}

// decoded returns what a text holds if it is JSON, and else the text.
func decoded(s string) any {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return s
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return s
	}
	return v
}
