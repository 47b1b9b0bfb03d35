//go:build unix

package executor

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
)

// inherited are the variables that attendants need of the environment of who
// starts them: where things are, and how to reach the network. Nothing else is
// handed on, because it may be a secret.
var inherited = []string{
	"PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "TZ",
	"XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK",
	"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
}

// attendEnv returns the environment of attendants.
func (x *Executor) attendEnv() []string {
	env := []string{}
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return append(env, x.opts.AttendEnv...)
}

// attendArgs returns the command that attends to the task.
func (x *Executor) attendArgs(id string) []string {
	return append(slices.Clone(x.opts.Attend), id)
}

// spawn starts an attendant in a session of its own, with nothing of this
// process's terminal. What it says goes to the task's attend.log.
func (x *Executor) spawn(id string) error {
	if len(x.opts.Attend) == 0 {
		return nil
	}
	return x.detach(x.folder.Task(id).AttendLog(), x.attendArgs(id))
}

// detach starts a program of ours in a session of its own. What it says goes to the end
// of the file at path.
func (x *Executor) detach(path string, args []string) error {
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return safefs.Sorted(caisson.OpState, path, err)
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = x.attendEnv()
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := x.start(cmd); err != nil {
		return &caisson.Error{
			Op: caisson.OpStart, Item: strings.Join(args, " "), Kind: caisson.ErrUnavailable,
			Err: errors.Join(errors.New("it could not be started; the next command tries again"), err),
		}
	}
	// It outlives this process, or ends before it: then it must not stay a
	// zombie.
	go func() { _ = cmd.Wait() }()
	return nil
}
