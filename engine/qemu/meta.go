package qemu

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/caissonrun/caisson/internal/isolate"
)

// The metadata service answers what taskcluster-worker's did, so that its guest
// tools, or a script with curl, run a task:
//
//	GET  /engine/v1/execute     {"env": {...}, "command": [...]}, once it is started
//	POST /engine/v1/log         what the task prints
//	PUT  /engine/v1/success     it has ended well; also /failed
//	GET  /engine/v1/poll        what it is asked to do: {"id", "type", ...}, none after half a minute
//	POST /engine/v1/reply?id=   that it has done so
//	GET  /engine/v1/ping
//
// Below /NAME/ are the task's proxies (meta_proxy.go).

const (
	// metaAddress is where a guest finds it, on its only network.
	metaAddress = "169.254.169.254"
	metaPort    = 80
	metaPrefix  = "/engine/v1/"
	// pollTime is how long a guest that polls waits for something to do.
	pollTime = 30 * time.Second
	// maxReply bounds what a guest answers.
	maxReply = 10 << 20
	// maxActions bounds what waits to be done.
	maxActions = 16
	copyBuffer = 32 << 10
)

// An ender is who is told that the task's program has ended.
type ender interface {
	finish(code, signal int, lost bool)
}

// A metadata is the service of one machine. Whoever is in the machine can ask it
// for everything, and end the task.
type metadata struct {
	end     ender
	mux     *http.ServeMux
	proxies *metaProxies  // nil without any
	asked   chan struct{} // closed by the first request
	began   chan struct{} // closed when there is a program
	gone    chan struct{} // closed at the end
	once    sync.Once

	logging sync.Mutex // held by who writes to out

	mu      sync.Mutex
	program *isolate.Program
	out     *os.File // nil: nothing more is taken
	logs    int      // requests that bring more
	idle    chan struct{}
	verdict string // what the guest has said: success or failed
	actions chan action
	next    int
	waiting map[string]bool // ids of actions that were handed out
}

// An action is what a guest is asked to do.
type action struct {
	ID      string   `json:"id"`
	Type    string   `json:"type"`
	Path    string   `json:"path"`
	Command []string `json:"command"`
	TTY     bool     `json:"tty"`
}

func newMetadata(end ender) *metadata {
	m := &metadata{
		end: end, mux: http.NewServeMux(), asked: make(chan struct{}), began: make(chan struct{}), gone: make(chan struct{}),
		idle: make(chan struct{}, 1), actions: make(chan action, maxActions), waiting: map[string]bool{},
	}
	m.mux.HandleFunc("GET "+metaPrefix+"execute", m.execute)
	m.mux.HandleFunc("POST "+metaPrefix+"log", m.log)
	m.mux.HandleFunc("PUT "+metaPrefix+"success", func(w http.ResponseWriter, _ *http.Request) { m.resolve(w, "success", 0) })
	m.mux.HandleFunc("PUT "+metaPrefix+"failed", func(w http.ResponseWriter, _ *http.Request) { m.resolve(w, "failed", 1) })
	m.mux.HandleFunc("GET "+metaPrefix+"poll", m.poll)
	m.mux.HandleFunc("POST "+metaPrefix+"reply", m.reply)
	m.mux.HandleFunc("GET "+metaPrefix+"ping", func(w http.ResponseWriter, _ *http.Request) { respond(w, http.StatusOK, struct{}{}) })
	return m
}

// ServeHTTP implements http.Handler.
func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	select {
	case <-m.asked:
	default:
		close(m.asked)
	}
	m.mu.Unlock()
	// Paths of proxies are passed on as they are; the other ones are cleaned.
	if h := m.proxies.handler(r); h != nil {
		h.ServeHTTP(w, r)
		return
	}
	m.mux.ServeHTTP(w, r)
}

// respond writes JSON. A guest that does not read it loses it.
func respond(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

func reject(w http.ResponseWriter, status int, why string) {
	respond(w, status, map[string]string{"error": why})
}

// begin says which program is the task's, and where its output goes.
func (m *metadata) begin(p *isolate.Program, out *os.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.program, m.out = p, out
	close(m.began)
}

// execute tells the program to who asks, as often as it is asked.
func (m *metadata) execute(w http.ResponseWriter, r *http.Request) {
	select {
	case <-m.began:
	case <-m.gone:
		reject(w, http.StatusServiceUnavailable, "the machine is ended")
		return
	case <-r.Context().Done():
		return
	}
	m.mu.Lock()
	p := m.program
	m.mu.Unlock()
	respond(w, http.StatusOK, map[string]any{"env": environment(p.Env), "command": p.Args})
}

// log takes a part of the task's output.
func (m *metadata) log(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	out := m.out
	if out != nil {
		m.logs++
	}
	m.mu.Unlock()
	if out == nil {
		reject(w, http.StatusConflict, "the task does not run")
		return
	}
	defer m.logged()
	m.logging.Lock()
	defer m.logging.Unlock()
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{r.Body}, make([]byte, copyBuffer)); err != nil {
		reject(w, http.StatusInternalServerError, "the log was cut off")
		return
	}
	respond(w, http.StatusOK, struct{}{})
}

// logged notes that a part of the log is over.
func (m *metadata) logged() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logs--
	select {
	case m.idle <- struct{}{}:
	default:
	}
}

// endLog takes nothing more of the log than what is under way, and waits for that.
func (m *metadata) endLog() {
	m.mu.Lock()
	m.out = nil
	m.mu.Unlock()
	limit := time.After(logTime)
	for {
		m.mu.Lock()
		logs := m.logs
		m.mu.Unlock()
		if logs == 0 {
			return
		}
		select {
		case <-m.idle:
		case <-m.gone:
			return
		case <-limit:
			return
		}
	}
}

// resolve takes the guest's word for how the task has ended. It can be said again,
// and not otherwise.
func (m *metadata) resolve(w http.ResponseWriter, verdict string, code int) {
	m.mu.Lock()
	began := m.program != nil
	first := m.verdict == ""
	if began && first {
		m.verdict = verdict
	}
	said := m.verdict
	m.mu.Unlock()
	switch {
	case !began:
		reject(w, http.StatusConflict, "the task does not run")
	case said != verdict:
		reject(w, http.StatusConflict, fmt.Sprintf("it was said that the task has ended otherwise: %s", said))
	default:
		respond(w, http.StatusOK, struct{}{})
		if first {
			// The answer is to arrive, and then the machine is ended.
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			m.end.finish(code, 0, false)
		}
	}
}

// ask has the guest do something, if it polls.
func (m *metadata) ask(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	select {
	case m.actions <- action{ID: strconv.Itoa(m.next), Type: what, Command: []string{}}:
	default:
	}
}

// poll hands out what the guest is to do.
func (m *metadata) poll(w http.ResponseWriter, r *http.Request) {
	select {
	case a := <-m.actions:
		m.mu.Lock()
		m.waiting[a.ID] = true
		m.mu.Unlock()
		respond(w, http.StatusOK, a)
	case <-time.After(pollTime):
		respond(w, http.StatusOK, action{Type: "none", Command: []string{}})
	case <-m.gone:
	case <-r.Context().Done():
	}
}

// reply takes the guest's word that something was done, with whatever it says.
func (m *metadata) reply(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("id")
	m.mu.Lock()
	known := m.waiting[id]
	delete(m.waiting, id)
	m.mu.Unlock()
	if !known {
		reject(w, http.StatusBadRequest, "nobody waits for that")
		return
	}
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxReply)); err != nil {
		reject(w, http.StatusRequestEntityTooLarge, "the reply is too long")
		return
	}
	respond(w, http.StatusOK, struct{}{})
}

// close ends all that waits.
func (m *metadata) close() { m.once.Do(func() { close(m.gone) }) }
