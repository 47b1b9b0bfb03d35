package gateway

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

func BenchmarkRewriter(b *testing.B) {
	list := append(swaps{{[]byte("s3cret/value+of=the%token"), []byte("CAISSON_PLACEHOLDER")}}, masks("s3cret/value+of=the%token")...).sorted()
	data := make([]byte, 64<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(' ' + random.IntN(90))
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		body := newRewriter(io.NopCloser(bytes.NewReader(data)), list, nil)
		io.Copy(io.Discard, body)
		body.Close()
	}
}
