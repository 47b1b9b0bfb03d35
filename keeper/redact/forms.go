package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Forms returns value and the forms in which programs print it, for those who
// look for them in another way than by a Writer.
func Forms(value []byte) [][]byte { return forms(value) }

// forms returns value and all forms of it that are long enough, some perhaps
// twice.
func forms(value []byte) [][]byte {
	all := [][]byte{value}
	add := func(form []byte) {
		if len(form) >= MinForm {
			all = append(all, form)
		}
	}
	// A terminal puts a carriage return before each line's end.
	add(bytes.ReplaceAll(value, []byte("\n"), []byte("\r\n")))
	add([]byte(hex.EncodeToString(value)))
	add([]byte(strings.ToUpper(hex.EncodeToString(value))))
	for _, form := range base64Forms(value) {
		add(form)
	}
	for _, keep := range urlKeeps {
		add(percent(value, keep, upperHex))
		add(percent(value, keep, lowerHex))
	}
	for _, style := range jsonStyles {
		add(style.escape(value))
	}
	return all
}

// base64Forms returns value in base64: inside of longer data, alone, with the
// line end that `echo` adds, and broken into lines as base64 and openssl do.
func base64Forms(value []byte) [][]byte {
	var all [][]byte
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		for before := range 3 {
			all = append(all, inside(enc, value, before))
		}
		raw := enc.WithPadding(base64.NoPadding)
		line := append(bytes.Clone(value), '\n')
		for _, alone := range [][]byte{value, line} {
			all = append(all, enc.AppendEncode(nil, alone), raw.AppendEncode(nil, alone))
		}
	}
	whole := inside(base64.StdEncoding, value, 0)
	for _, width := range []int{76, 64} {
		if len(whole) > width {
			all = append(all, wrap(whole, width))
		}
	}
	return all
}

// inside returns the characters that value alone decides when it stands behind
// a number of other bytes (modulo 3) and before unknown ones.
func inside(enc *base64.Encoding, value []byte, before int) []byte {
	padded := append(make([]byte, before), value...)
	text := enc.WithPadding(base64.NoPadding).AppendEncode(nil, padded)
	start := (8*before + 5) / 6
	end := 8 * len(padded) / 6
	return text[min(start, end):end]
}

func wrap(text []byte, width int) []byte {
	var lines [][]byte
	for len(text) > width {
		lines = append(lines, text[:width])
		text = text[width:]
	}
	return bytes.Join(append(lines, text), []byte("\n"))
}

const (
	upperHex = "0123456789ABCDEF"
	lowerHex = "0123456789abcdef"
)

// urlKeeps are the characters besides letters and digits that programs leave
// as they are in a URL. A space among them stands for "written as a plus".
var urlKeeps = []string{
	"-_.~",                   // RFC 3986
	"-_.~ ",                  // queries
	"*-._ ",                  // HTML forms
	"-_.~/",                  // Python's quote
	"-_.~$&+:=@",             // segments of a path, in Go
	"-_.!~*'()",              // JavaScript's encodeURIComponent
	"-_.!~*'();/?:@&=+$,#",   // JavaScript's encodeURI
	"-_.!~*'();/?:@&=+$,#[]", // URLs that are whole already
	"",
}

// percent returns value with all but letters, digits and keep escaped.
func percent(value []byte, keep, digits string) []byte {
	out := make([]byte, 0, 3*len(value))
	for _, c := range value {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			out = append(out, c)
		case strings.IndexByte(keep, c) < 0:
			out = append(out, '%', digits[c>>4], digits[c&15])
		case c == ' ':
			out = append(out, '+')
		default:
			out = append(out, c)
		}
	}
	return out
}

// A jsonStyle is how a program writes strings in JSON, beyond what all do.
type jsonStyle struct {
	html  bool // < > & as \u003c and so on, as Go does
	ascii bool // nothing but ASCII, as Python does
	slash bool // \/, as PHP does
}

var jsonStyles = []jsonStyle{
	{}, {html: true}, {ascii: true}, {slash: true}, {ascii: true, slash: true},
}

func (s jsonStyle) escape(value []byte) []byte {
	out := make([]byte, 0, 2*len(value))
	for len(value) > 0 {
		r, n := utf8.DecodeRune(value)
		if r < utf8.RuneSelf {
			out = s.escapeASCII(out, value[0])
		} else if s.ascii && (r != utf8.RuneError || n > 1) {
			out = escapeRune(out, r)
		} else {
			out = append(out, value[:n]...)
		}
		value = value[n:]
	}
	return out
}

func (s jsonStyle) escapeASCII(out []byte, c byte) []byte {
	if i := strings.IndexByte("\"\\\n\r\t\b\f", c); i >= 0 {
		return append(out, '\\', `"\nrtbf`[i])
	}
	switch {
	case c < ' ' || c == 0x7f && s.ascii, s.html && strings.IndexByte("<>&", c) >= 0:
		return appendU(out, uint16(c))
	case c == '/' && s.slash:
		return append(out, '\\', '/')
	}
	return append(out, c)
}

func escapeRune(out []byte, r rune) []byte {
	if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
		return appendU(appendU(out, uint16(high)), uint16(low))
	}
	return appendU(out, uint16(r))
}

func appendU(out []byte, u uint16) []byte {
	return append(out, '\\', 'u', lowerHex[u>>12], lowerHex[u>>8&15], lowerHex[u>>4&15], lowerHex[u&15])
}
