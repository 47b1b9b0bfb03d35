package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// maxAnswer is the most bytes that a plugin may say: an answer is a page.
const maxAnswer = 1 << 20

// lingering is how long the output of a plugin that was killed is waited for.
const lingering = time.Second

// plugins runs CNI plugins. Unlike libcni's own way, one that hangs is killed
// with all that it has started, what it says has a limit, and it is not given
// the environment of this process.
type plugins struct{ version.PluginDecoder }

var _ invoke.Exec = (*plugins)(nil)

// ExecPlugin implements invoke.Exec.
func (*plugins) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr limited
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = pluginEnv(environ)
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// It must not go on behind the back of whoever undoes what a killed process
	// has begun. Its death is bound to that of the thread, which is kept for it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = lingering
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // a child of it holds its output; its answer is complete
	}
	if err != nil {
		return nil, pluginError(err, stdout.Bytes(), stderr.Bytes())
	}
	if stdout.cut {
		return nil, fmt.Errorf("it said more than %d bytes", maxAnswer)
	}
	return stdout.Bytes(), nil
}

// pluginEnv leaves a plugin what belongs to its call, and where it finds the
// programs of the system.
func pluginEnv(environ []string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, kv := range environ {
		if strings.HasPrefix(kv, "CNI_") {
			env = append(env, kv)
		}
	}
	return env
}

// pluginError reads what a plugin says about its failure.
func pluginError(err error, stdout, stderr []byte) error {
	said := new(types.Error)
	if jsonErr := json.Unmarshal(stdout, said); jsonErr == nil && said.Msg != "" {
		return said
	}
	if text := strings.TrimSpace(string(stderr)); text != "" {
		first, _, _ := strings.Cut(text, "\n")
		return fmt.Errorf("%w: %.300s", err, first)
	}
	return err
}

// FindInPath implements invoke.Exec.
func (*plugins) FindInPath(plugin string, dirs []string) (string, error) {
	return findPlugin(plugin, dirs)
}

// findPlugin returns where a plugin is installed. Its name comes from the
// operator's file.
func findPlugin(plugin string, dirs []string) (string, error) {
	if plugin == "" || strings.ContainsAny(plugin, "/\x00") || plugin == "." || plugin == ".." {
		return "", fmt.Errorf("%q is no name of a plugin", plugin)
	}
	for _, dir := range dirs {
		path := dir + "/" + plugin
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("plugin %q is not installed in %s", plugin, strings.Join(dirs, ", "))
}

// limited is a buffer that takes so much and drops the rest.
type limited struct {
	bytes.Buffer
	cut bool
}

var _ io.Writer = (*limited)(nil)

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	room := maxAnswer - l.Len()
	if len(p) > room {
		l.cut = true
	}
	l.Buffer.Write(p[:min(len(p), max(room, 0))])
	return len(p), nil
}
