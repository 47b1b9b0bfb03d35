//go:build unix

package server

import "os"

// openInput returns what a program reads data from, as its standard input, or
// nil where there is none. A pipe takes nothing of anybody's disk, and nobody
// else can read it.
//
// Whoever writes it has ended once nothing of the sandbox runs any more, at the
// latest: then nobody holds the end that is returned here.
func openInput(data []byte) (*os.File, error) {
	if len(data) == 0 {
		return nil, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() {
		// The program need not read it.
		_, _ = w.Write(data)
		w.Close()
	}()
	return r, nil
}
