package tasklog

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode"
)

// maxLine is the most that LastLine returns, in bytes.
const maxLine = 1 << 10

// LastLine returns the last line of a stream in a log that is not empty, made
// fit to be shown. It is what a program has to say about its end. Of a log that
// can't be read it is empty.
func LastLine(log string, stream Stream) string {
	r, err := Open(log, 0)
	if err != nil {
		return ""
	}
	defer r.Close()
	var end []byte
	for {
		rec, err := r.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return ""
			}
			break
		}
		if rec.Stream != stream {
			continue
		}
		end = append(end, rec.Data...)
		end = end[max(0, len(end)-maxLine):]
	}
	end = bytes.TrimSpace(end)
	end = end[bytes.LastIndexByte(end, '\n')+1:]
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, strings.ToValidUTF8(string(end), string(unicode.ReplacementChar)))
}
