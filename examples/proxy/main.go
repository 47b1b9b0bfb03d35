// Command proxy is a git server that wants a token, for examples/proxy.yaml,
// allow.yaml and broker.yaml: tasks clone from it and never see the token.
//
//	caisson-example-git FOLDER
//
// serves the repositories of a folder to who has the token that lies there, at a
// socket that it inherits: it is the command of an upstream, see caisson.toml.
//
//	caisson-example-git -make FOLDER
//
// makes such a folder, with one repository, where there is none, as make build
// does.
//
//	go run ./examples/proxy caisson run examples/broker.yaml
//
// serves another one at a port of this host for as long as the command runs.
// Its variable EXAMPLE_TOKEN is the token, for who submits a task with it, and
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
	"strconv"
	"strings"
)

// What a folder has: the token and a repository.
const (
	tokenFile  = "token"
	repository = "hello.git"
)

// inherited is the descriptor of a listening socket, see sd_listen_fds(3).
const inherited = 3

func main() {
	fill := flag.String("make", "", "make the `folder` that is served, and serve nothing")
	listen := flag.String("listen", "127.0.0.1:8418", "where the server of a command is: an `address`; port 0 is any that is free")
	flag.Parse()
	var err error
	switch {
	case *fill != "" && flag.NArg() == 0:
		err = makeFolder(*fill)
	case *fill != "" || flag.NArg() == 0:
		fmt.Fprintln(os.Stderr, "usage: proxy FOLDER | proxy -make FOLDER | proxy [-listen ADDRESS] COMMAND...")
		os.Exit(2)
	case os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()):
		err = serveInherited(flag.Arg(0))
	default:
		// ^C is for the command, which ends by it, and then so does this. A signal that
		// were ignored would be ignored by the command, too.
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
		err = serveCommand(*listen, flag.Args())
	}
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.ExitCode() > 0 {
		os.Exit(ended.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

// serveInherited serves a folder until somebody ends this process.
func serveInherited(dir string) error {
	l, err := net.FileListener(os.NewFile(inherited, "listener"))
	if err != nil {
		return err
	}
	server, err := newServer(dir)
	if err != nil {
		return err
	}
	return server.Serve(l)
}

// serveCommand serves a folder of its own while the command runs.
func serveCommand(address string, command []string) (err error) {
	dir, err := os.MkdirTemp("", "caisson-example-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := makeFolder(dir); err != nil {
		return err
	}
	server, err := newServer(dir)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%w; choose another address with -listen", err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "EXAMPLE_TOKEN="+strings.TrimSpace(string(token)), "EXAMPLE_SERVER="+l.Addr().String())
	err = cmd.Run()
	_ = server.Shutdown(context.Background())
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// newServer returns the server of a folder.
func newServer(dir string) (*http.Server, error) {
	token, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, repository)); err != nil {
		return nil, fmt.Errorf("%w; install git, then run make build", err)
	}
	backend, err := gitBackend(dir)
	if err != nil {
		return nil, err
	}
	return &http.Server{Handler: guarded(strings.TrimSpace(string(token)), backend), ErrorLog: log.New(io.Discard, "", 0)}, nil
}

// makeFolder makes what a folder does not have. Where there is no git, it has no
// repository.
func makeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	token, err := os.OpenFile(filepath.Join(dir, tokenFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = token.WriteString(rand.Text() + "\n")
		err = errors.Join(err, token.Close())
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, repository)); err == nil {
		return nil
	}
	if _, err := exec.LookPath("git"); err != nil {
		fmt.Fprintln(os.Stderr, "proxy: there is no git here, so examples/proxy.yaml has no repository")
		return nil
	}
	return makeRepository(dir)
}

// makeRepository makes a repository with one commit. It is there when it is
// complete.
func makeRepository(dir string) (err error) {
	tmp, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	work, bare := filepath.Join(tmp, "work"), filepath.Join(tmp, repository)
	if err := git("init", "-q", "-b", "main", work); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "hello.txt"), []byte("hello from behind a token\n"), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-C", work, "add", "."},
		{"-C", work, "-c", "user.name=Example", "-c", "user.email=example@example.com", "commit", "-q", "-m", "hello"},
		{"clone", "-q", "--bare", work, bare},
	} {
		if err := git(args...); err != nil {
			return err
		}
	}
	return os.Rename(bare, filepath.Join(dir, repository))
}

func git(args ...string) error {
	if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// gitBackend is git's own server, as http. Whoever the repositories belong to,
// this server's operator has chosen them.
func gitBackend(dir string) (http.Handler, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("git --exec-path: %w", err)
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env: []string{
			"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		},
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
