//go:build unix

package qemu

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson/internal/isolate"
)

// An ended remembers how often a task has ended, and how.
type ended struct{ codes chan int }

func (e *ended) finish(code, _ int, _ bool) { e.codes <- code }

// A metaTest is a service with somebody who asks it.
type metaTest struct {
	t    *testing.T
	m    *metadata
	end  *ended
	srv  *httptest.Server
	read *os.File // what the task prints
}

func newMetaTest(t *testing.T) *metaTest {
	x := &metaTest{t: t, end: &ended{codes: make(chan int, 8)}}
	x.m = newMetadata(x.end)
	x.srv = httptest.NewServer(x.m)
	t.Cleanup(func() {
		x.m.close()
		x.srv.Close()
	})
	return x
}

// begin starts the task's program.
func (x *metaTest) begin() {
	r, w, err := os.Pipe()
	if err != nil {
		x.t.Fatal(err)
	}
	x.read = r
	x.t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	x.m.begin(&isolate.Program{Args: []string{"make", "all"}, Env: []string{"A=1", "B=x=y"}}, w)
}

// do asks for something and returns the status and the answer.
func (x *metaTest) do(method, path, body string) (int, string) {
	x.t.Helper()
	req, err := http.NewRequestWithContext(x.t.Context(), method, x.srv.URL+path, strings.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	resp, err := x.srv.Client().Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// want asks and holds the status.
func (x *metaTest) want(status int, method, path, body string) string {
	x.t.Helper()
	got, said := x.do(method, path, body)
	if got != status {
		x.t.Errorf("%s %s = %d %s, want %d", method, path, got, said, status)
	}
	return said
}

// TestMetadata holds what a guest is answered.
func TestMetadata(t *testing.T) {
	x := newMetaTest(t)
	x.want(409, "PUT", "/engine/v1/success", "")
	x.want(409, "POST", "/engine/v1/log", "too early")
	x.want(404, "GET", "/engine/v1/other", "")
	x.want(404, "GET", "/", "")
	x.want(405, "GET", "/engine/v1/success", "")
	x.want(200, "GET", "/engine/v1/ping", "")
	select {
	case <-x.m.asked:
	case <-time.After(time.Minute):
		t.Error("nobody knows that the guest has asked")
	}

	// Who asks before there is a task waits for it.
	early := make(chan string, 1)
	go func() {
		resp, err := x.srv.Client().Get(x.srv.URL + "/engine/v1/execute")
		if err != nil {
			early <- err.Error()
			return
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		early <- string(data)
	}()
	x.begin()
	const task = `{"command":["make","all"],"env":{"A":"1","B":"x=y"}}`
	if got := <-early; got != task {
		t.Errorf("execute = %s, want %s", got, task)
	}
	if got := x.want(200, "GET", "/engine/v1/execute", ""); got != task {
		t.Errorf("execute again = %s, want %s", got, task)
	}

	x.want(200, "POST", "/engine/v1/log", "one ")
	x.want(200, "POST", "/engine/v1/log", "two")
	got := make([]byte, 7)
	if _, err := io.ReadFull(x.read, got); err != nil || string(got) != "one two" {
		t.Errorf("the log has %q, %v", got, err)
	}

	x.m.ask("kill-process")
	var a action
	if err := json.Unmarshal([]byte(x.want(200, "GET", "/engine/v1/poll", "")), &a); err != nil || a.Type != "kill-process" || a.ID == "" {
		t.Errorf("poll = %+v, %v", a, err)
	}
	x.want(200, "POST", "/engine/v1/reply?id="+a.ID, "done")
	x.want(400, "POST", "/engine/v1/reply?id="+a.ID, "again")
	x.want(400, "POST", "/engine/v1/reply", "")

	x.want(200, "PUT", "/engine/v1/failed", "")
	x.want(200, "PUT", "/engine/v1/failed", "")
	x.want(409, "PUT", "/engine/v1/success", "")
	if code := <-x.end.codes; code != 1 || len(x.end.codes) > 0 {
		t.Errorf("it has ended with %d, and %d times more", code, len(x.end.codes))
	}
	x.m.endLog()
	x.want(409, "POST", "/engine/v1/log", "too late")
}

// TestMetadataHostile holds that what a guest does holds up nobody but itself.
func TestMetadataHostile(t *testing.T) {
	x := newMetaTest(t)
	x.begin()
	for range 10 * maxActions {
		x.m.ask("kill-process") // nobody polls
	}
	if n := len(x.m.actions); n != maxActions {
		t.Errorf("%d actions wait, want %d", n, maxActions)
	}
	var a action
	if err := json.Unmarshal([]byte(x.want(200, "GET", "/engine/v1/poll", "")), &a); err != nil {
		t.Fatal(err)
	}
	status, said := x.do("POST", "/engine/v1/reply?id="+a.ID, strings.Repeat("x", maxReply+1))
	if status != 413 {
		t.Errorf("a reply without end = %d %s", status, said)
	}
	// A log that never ends does not hold up the task's end once the machine is ended.
	r, w := io.Pipe()
	defer w.Close()
	go func() {
		req, err := http.NewRequest(http.MethodPost, x.srv.URL+"/engine/v1/log", r)
		if err == nil {
			if resp, err := x.srv.Client().Do(req); err == nil {
				resp.Body.Close()
			}
		}
	}()
	if _, err := w.Write([]byte("begun")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(x.read, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	go func() {
		x.m.endLog()
		close(waits)
	}()
	x.m.close()
	select {
	case <-waits:
	case <-time.After(time.Minute):
		t.Error("the end waits for the log")
	}
}
