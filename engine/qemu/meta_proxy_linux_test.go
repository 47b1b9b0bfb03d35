package qemu

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"

	"github.com/caissonrun/caisson/internal/carry"
	"github.com/caissonrun/caisson/internal/isolate"
)

// serveProxy serves the sockets of a service's proxies, as an attendant does.
func serveProxy(t *testing.T, x *metaProxies, h http.Handler) {
	t.Helper()
	fds, err := x.gate.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		end := os.NewFile(uintptr(fd), "socket")
		l, err := carry.Listener(end, &net.TCPAddr{})
		end.Close()
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: h}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = srv.Serve(l)
		}()
		t.Cleanup(func() {
			srv.Close()
			<-done
		})
	}
}

// TestMetadataProxies holds that what is below a proxy's name is asked of who serves
// it, by its name and without that in the path, and that nothing else is.
func TestMetadataProxies(t *testing.T) {
	x := newMetaTest(t)
	g := &guestGateway{Sockets: []isolate.Socket{{IP: net.IPv4(127, 64, 0, 1).To4(), Port: 80}, {IP: net.IPv4(127, 64, 0, 2).To4(), Port: 80}}}
	proxies, err := newMetaProxies(g, map[string]string{"git": "127.64.0.1", "queue": "127.64.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := proxies.gate.Close(); err != nil {
			t.Error(err)
		}
	}()
	x.m.proxies = proxies

	// Who asks before somebody serves it waits.
	early := make(chan string, 1)
	go func() {
		resp, err := x.srv.Client().Get(x.srv.URL + "/git")
		if err != nil {
			early <- err.Error()
			return
		}
		defer resp.Body.Close()
		data, _ := io.ReadAll(resp.Body)
		early <- string(data)
	}()
	serveProxy(t, proxies, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %s %q %s", r.Method, r.Host, local, r.RequestURI, r.Header.Get("X-Forwarded-For"), body)
	}))
	if got := <-early; got != `GET git 127.64.0.1:80 / "" ` {
		t.Errorf("early: %s", got)
	}
	for _, test := range []struct{ method, path, body, want string }{
		{"POST", "/git/a%2Fb/../c?d=e", "data", `POST git 127.64.0.1:80 /a%2Fb/../c?d=e "" data`},
		{"GET", "/queue//x", "", `GET queue 127.64.0.2:80 //x "" `},
	} {
		if got := x.want(http.StatusTeapot, test.method, test.path, test.body); got != test.want {
			t.Errorf("%s %s = %s, want %s", test.method, test.path, got, test.want)
		}
	}
	x.want(200, "GET", "/engine/v1/ping", "")
	x.want(404, "GET", "/gits/", "")
	x.want(404, "GET", "/", "")

	// After the program's end nobody serves them.
	proxies.gate.Shut()
	x.want(http.StatusBadGateway, "GET", "/git/", "")
}
