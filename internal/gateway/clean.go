package gateway

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// An encodedError says that an answer can't be looked through.
type encodedError struct{ encoding string }

func (e *encodedError) Error() string {
	return fmt.Sprintf("answered in the encoding %q although it was asked for none: what holds a secret could not be taken out", clip(e.encoding))
}

// clean makes swaps in an answer: in its headers, in its body as that is read,
// and in its trailers. Where nothing changes its length, that stays known.
func (s swaps) clean(res *http.Response) error {
	if len(s) == 0 {
		return nil
	}
	s.header(res.Header)
	if res.StatusCode == http.StatusSwitchingProtocols {
		if stream, ok := res.Body.(io.ReadWriteCloser); ok {
			res.Body = &rewrittenStream{newRewriter(stream, s.sameLength().sorted(), nil), stream}
		}
		return nil
	}
	if !hasBody(res) {
		return nil
	}
	if err := decode(res); err != nil {
		return err
	}
	if !s.keepsLength() {
		forgetLength(res)
	}
	res.Body = newRewriter(res.Body, s.sorted(), func() { s.header(res.Trailer) })
	return nil
}

func (s swaps) header(h http.Header) {
	sorted := s.sorted()
	for key, values := range h {
		if sorted.has(key) {
			delete(h, key)
			continue
		}
		for i := range values {
			values[i] = sorted.text(values[i])
		}
	}
}

func hasBody(res *http.Response) bool {
	head := res.Request != nil && res.Request.Method == http.MethodHead
	return !head && res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusNotModified && res.Body != http.NoBody
}

func forgetLength(res *http.Response) {
	res.ContentLength = -1
	res.Header.Del("Content-Length")
}

// decode takes gzip off a body: some servers do not care what they are asked
// for. Errors: encodedError for other encodings.
func decode(res *http.Response) error {
	encoding := strings.Join(res.Header.Values("Content-Encoding"), ", ")
	switch strings.ToLower(encoding) {
	case "", "identity":
		return nil
	case "gzip", "x-gzip":
	default:
		return &encodedError{encoding}
	}
	res.Body = &unzipped{src: res.Body}
	res.Header.Del("Content-Encoding")
	forgetLength(res)
	return nil
}

// unzipped is a body without its gzip. That begins to be read with the body.
type unzipped struct {
	src io.ReadCloser
	zip *gzip.Reader
}

func (u *unzipped) Read(p []byte) (int, error) {
	if u.zip == nil {
		zip, err := gzip.NewReader(u.src)
		if err != nil {
			return 0, err
		}
		u.zip = zip
	}
	return u.zip.Read(p)
}

func (u *unzipped) Close() error { return u.src.Close() }
