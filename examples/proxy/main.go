// Command proxy is a git server that wants a token, for examples/proxy.yaml,
// allow.yaml and broker.yaml: tasks clone from it and never see the token.
//
//	go run ./examples/proxy caisson run examples/proxy.yaml
//
// serves one repository for as long as the command runs, and tells the command
// by its environment what an operator says in caisson.toml: CAISSON_PROXY is the
// section
//
//	[proxy.repositories]
//	url = "http://127.0.0.1:8418"
//	token_file = "..."
//
// EXAMPLE_TOKEN is the token itself, for who submits a task with it, and
// EXAMPLE_SERVER the server's address.
package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8418", "the server's `address`; port 0 is any that is free")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: proxy [-listen ADDRESS] COMMAND...")
		os.Exit(2)
	}
	// ^C is for the command, which ends by it, and then so does this. A signal that
	// were ignored would be ignored by the command, too.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	err := serve(*listen, flag.Args())
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		os.Exit(ended.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

// serve serves a repository while the command runs.
func serve(address string, command []string) (err error) {
	dir, err := os.MkdirTemp("", "caisson-example-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := makeRepository(dir); err != nil {
		return err
	}
	token := rand.Text()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%w; choose another address with -listen", err)
	}
	backend, err := gitBackend(dir)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	server := &http.Server{Handler: guarded(token, backend), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	err = run(command, l.Addr().String(), file, token)
	_ = server.Shutdown(context.Background())
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// run runs the command, which is told where the server is.
func run(command []string, address, file, token string) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(),
		fmt.Sprintf("CAISSON_PROXY={repositories = {url = %q, token_file = %q}}", "http://"+address, file),
		"EXAMPLE_TOKEN="+token, "EXAMPLE_SERVER="+address,
	)
	return cmd.Run()
}

// makeRepository makes a repository with one commit.
func makeRepository(dir string) error {
	work := filepath.Join(dir, "work")
	if err := git("init", "-q", "-b", "main", work); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "hello.txt"), []byte("hello from behind a token\n"), 0o644); err != nil {
		return err
	}
	return errors.Join(
		git("-C", work, "add", "."),
		git("-C", work, "-c", "user.name=Example", "-c", "user.email=example@example.com", "commit", "-q", "-m", "hello"),
		git("clone", "-q", "--bare", work, filepath.Join(dir, "hello.git")),
	)
}

func git(args ...string) error {
	if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// gitBackend is git's own server, as http.
func gitBackend(dir string) (http.Handler, error) {
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("git --exec-path: %w", err)
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1"},
	}, nil
}

// guarded lets in who has the token: as a bearer, or as somebody's password.
func guarded(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if _, password, basic := r.BasicAuth(); basic {
			given, ok = password, true
		}
		if !ok || subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="example"`)
			http.Error(w, "a token is wanted", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
