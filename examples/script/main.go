// Command script is an operator's program for the engine script: it signs a
// file of the task's with a key that no task can see. See examples/script.
//
//	{"file": "report.txt"}
//
// asks for a signature (Ed25519) of the file report.txt in the work folder,
// which becomes artifacts/report.txt.sig.
//
//	caisson-sign --make-key FILE
//
// makes a key where there is none, as make build does.
package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
)

// keyFile is where the engine puts the operator's secret "key".
const keyFile = "/run/secrets/key"

// What the program says by its exit status.
const (
	failed    = 1 // the file can't be signed
	malformed = 2 // the task asks for something else
	fatal     = 4 // there is no key: no task can be served
)

// maxFile is the largest file that is signed, in bytes.
const maxFile = 64 << 20

func main() {
	if len(os.Args) == 3 && os.Args[1] == "--make-key" {
		if err := makeKey(os.Args[2]); err != nil {
			exit(failed, err)
		}
		return
	}
	key, err := readKey()
	if err != nil {
		exit(fatal, err)
	}
	if len(os.Args) > 1 && os.Args[1] == "--check" {
		return
	}
	var ask struct {
		File string `json:"file"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&ask); err != nil {
		exit(malformed, err)
	}
	if ask.File == "" {
		exit(malformed, errors.New("file: name one in the work folder"))
	}
	if err := sign(key, ask.File); err != nil {
		exit(failed, err)
	}
	fmt.Printf("signed %s\n", ask.File)
}

// exit says what is wrong: the last line is the message that the task's result
// has.
func exit(status int, err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(status)
}

// readKey reads the key as `openssl genpkey -algorithm ed25519` writes it.
func readKey() (ed25519.PrivateKey, error) {
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", keyFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is no ed25519 key", keyFile)
	}
	return private, nil
}

// makeKey makes a key as openssl would. One that is there stays.
func makeKey(name string) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	data, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: data}), f.Close())
}

// sign signs a file of the work folder. Links in it can't lead out of it: what
// is signed is what the task has brought.
func sign(key ed25519.PrivateKey, name string) error {
	work, err := os.OpenRoot(os.Getenv("CAISSON_WORK"))
	if err != nil {
		return err
	}
	defer work.Close()
	f, err := work.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(data) > maxFile {
		return fmt.Errorf("%s: larger than %d bytes", name, maxFile)
	}
	return work.WriteFile(path.Join("artifacts", path.Base(name)+".sig"), ed25519.Sign(key, data), 0o644)
}
