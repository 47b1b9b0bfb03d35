package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

func displayCases() []Case {
	needs := []string{"displays"}
	servers := []string{"displays", "display_servers"}
	return []Case{
		{
			Name: "displays/listed", Needs: needs, Rules: []int{71},
			Rule: "displays are listed with name and description in the task's order, with a size that is theirs or 0, and nothing else is",
			body: displaysListed,
		},
		{
			Name: "displays/none", Needs: servers, Rules: []int{71, 73},
			Rule: "a task without displays has an empty list, and none opens",
			body: displaysNone,
		},
		{
			Name: "displays/open", Needs: needs, Rules: []int{72},
			Rule: "every listed display opens as RFB, by several viewers, with the size that is listed before or after",
			body: displaysOpen,
		},
		{
			Name: "displays/picture", Needs: servers, Rules: []int{72, 75},
			Rule: "a viewer gets every byte of what a task's own server shows, and sees another size when that changes it",
			body: displaysPicture,
		},
		{
			Name: "displays/port", Needs: append(slices.Clone(servers), "networks.inside"), Rules: []int{72},
			Rule: "a task's own server at a port of the sandbox's loopback address is reached there, and the host's never",
			body: displaysPort,
		},
		{
			Name: "displays/unknown", Needs: needs, Rules: []int{73},
			Rule: "a display that does not exist is ErrNotFound, and there is no stream",
			body: displaysUnknown,
		},
		{
			Name: "displays/not-yet", Needs: servers, Rules: []int{72},
			Rule: "a server that does not listen yet, or never started, is ErrUnavailable, and opens once it does",
			body: displaysNotYet,
		},
		{
			Name: "displays/leads-out", Needs: servers, Rules: []int{72, 106}, wants: []facility{rooted},
			Rule: "a place that is a link, a file or a FIFO is refused: no display leads out of the work folder",
			body: displaysLeadOut,
		},
		{
			Name: "displays/end", Needs: needs, Rules: []int{74},
			Rule: "streams end when the program ends; then displays are ErrEnded again and again, and after Destroy ErrAborted",
			body: displaysEnd,
		},
		{
			Name: "displays/viewers", Needs: needs, Rules: []int{75},
			Rule: "viewers that do not read, talk nonsense or hang up disturb neither the others nor the program",
			body: displaysViewers,
		},
		{
			Name: "displays/flood", Needs: needs, Rules: []int{75},
			Rule: "any number of viewers can be asked for: each is served or told ErrExhausted or ErrUnavailable, and when they go others come",
			body: displaysFlood,
		},
		{
			Name: "displays/bounded", Needs: needs, Rules: []int{53},
			Rule: "a context that has ended ends the calls",
			body: displaysBounded,
		},
		{
			Name: "displays/paused", Needs: append(slices.Clone(needs), "pause"), Rules: []int{75},
			Rule: "displays of a paused sandbox are listed and opened, and those who look see it go on",
			body: displaysPaused,
		},
		{
			Name: "displays/kept", Needs: append(slices.Clone(needs), "keep", "exec"), Rules: []int{70, 74},
			Rule: "displays of a sandbox that is kept can be looked at until it is over",
			body: displaysKept,
		},
		{
			Name: "displays/recovered", Needs: needs, Rules: []int{120},
			Rule: "another process finds the same displays, and streams of the first end with nobody else's",
			body: displaysRecovered,
		},
		{
			Name: "displays/mistakes", Needs: needs, Rules: []int{5},
			Rule: "displays of one name, places outside of the work folder, and several screens of a sandbox's own are ErrInvalid, by their fields",
			body: displaysMistakes,
		},
	}
}

// shows reports whether a sandbox is a Displayer that works. One of an engine
// without displays must say so.
func (t *T) shows(sb engine.Sandbox) bool {
	d, ok := sb.(engine.Displayer)
	if !ok || t.features.Displays {
		return ok
	}
	_, list := d.Displays(t.ctx)
	_, open := d.OpenDisplay(t.ctx, "screen")
	return !errors.Is(list, caisson.ErrUnsupported) || !errors.Is(open, caisson.ErrUnsupported)
}

func displaysListed(t *T) {
	spec := t.displaying("say ready ; hold")
	for i := range spec.Displays {
		spec.Displays[i].Description = fmt.Sprintf("the %d. of them", i)
	}
	b := t.start(spec)
	b.says("ready")
	for range 2 {
		list := b.displays()
		if len(list) != len(spec.Displays) {
			t.Fatalf("Displays = %+v, want %d of them", list, len(spec.Displays))
		}
		for i, d := range list {
			want := spec.Displays[i]
			if d.Name != want.Name || d.Description != want.Description {
				t.Errorf("display %d is %+v, want %q, %q", i, d, want.Name, want.Description)
			}
			if want.Server() && (d.Width != want.Width || d.Height != want.Height) {
				t.Errorf("display %q has %d by %d pixels, the task says %d by %d", d.Name, d.Width, d.Height, want.Width, want.Height)
			}
		}
	}
}

func displaysNone(t *T) {
	b := t.holding()
	if list := b.displays(); list == nil || len(list) > 0 {
		t.Errorf("Displays = %#v, want an empty list", list)
	}
	b.noDisplay("screen", caisson.ErrNotFound)
}

func displaysOpen(t *T) {
	spec := t.displaying("say ready ; hold")
	b := t.start(spec)
	b.says("ready")
	for _, d := range spec.Displays {
		before := b.display(d.Name)
		first, second := b.look(d.Name), b.look(d.Name)
		for _, v := range []*viewing{first, second, first} {
			size := v.picture().Bounds().Size()
			after := b.display(d.Name)
			if !fits(before, size) && !fits(after, size) {
				t.Errorf("display %q shows %v pixels, and is listed with %d by %d, then %d by %d", d.Name, size, before.Width, before.Height, after.Width, after.Height)
			}
		}
	}
}

func displaysPicture(t *T) {
	b := t.start(t.serving("vnc.sock", "trap 10 ; show /work/vnc.sock 300x200 ff8000 ; say shown ; await 10 ; show /work/vnc.sock 33x400 0040ff ; say changed ; hold"))
	b.says("shown")
	v := b.look("server")
	for range 2 {
		v.shows(300, 200, 0xff8000)
	}
	b.signal(10)
	b.says("changed")
	v.shows(33, 400, 0x0040ff)
	b.look("server").shows(33, 400, 0x0040ff)
}

func displaysPort(t *T) {
	host := t.listen("tcp", "127.0.0.1:0").Addr().(*net.TCPAddr).Port
	spec := t.spec("show 5900 64x48 00ff80 ; say shown ; hold")
	spec.Displays = []caisson.Display{{Name: "here", Port: 5900}, {Name: "host", Port: host}}
	b := t.start(spec)
	b.says("shown")
	b.look("here").shows(64, 48, 0x00ff80)
	b.noDisplay("host", caisson.ErrUnavailable)
}

func displaysUnknown(t *T) {
	spec := t.displaying("say ready ; hold")
	b := t.start(spec)
	b.says("ready")
	for _, name := range []string{"", "nothing", "SCREEN", "../screen", "screen/", "vnc.sock", "5900", strings.Repeat("x", 1<<16), "\x00"} {
		b.noDisplay(name, caisson.ErrNotFound)
	}
	b.look(spec.Displays[0].Name).picture()
}

func displaysNotYet(t *T) {
	spec := t.serving("vnc.sock", "trap 10 ; say ready ; await 10 ; show /work/vnc.sock 64x48 ff8000 ; say shown ; hold")
	sb := t.create(spec)
	_, err := sb.(engine.Displayer).OpenDisplay(t.ctx, "server")
	t.kind(err, "OpenDisplay before Start", caisson.ErrUnavailable)
	b := t.begin(sb, spec)
	b.says("ready")
	b.noDisplay("server", caisson.ErrUnavailable)
	b.signal(10)
	b.says("shown")
	b.look("server").shows(64, 48, 0xff8000)
}

func displaysLeadOut(t *T) {
	outside := t.listenOutside()
	spec := t.spec("symlink " + outside.dir + "/s /work/link ; symlink " + outside.dir +
		" /work/folder ; write /work/file x ; fifo /work/fifo ; say ready ; hold")
	// What a program says of itself must not matter; what leads there must.
	for _, name := range []string{"link", "folder/s", "file", "fifo"} {
		spec.Displays = append(spec.Displays, caisson.Display{Name: strings.ReplaceAll(name, "/", "-"), Socket: name})
	}
	b := t.start(spec)
	b.says("ready")
	for _, d := range spec.Displays {
		b.noDisplay(d.Name, caisson.ErrDenied, caisson.ErrInvalid, caisson.ErrUnavailable)
	}
	if outside.calls.Load() > 0 {
		t.Errorf("a socket outside of the sandbox was connected to")
	}
}

func displaysEnd(t *T) {
	for name, end := range map[string]func(*box){
		"kill": func(b *box) { b.stop(engine.Stop{Reason: caisson.ReasonKilled}) },
		"stop": func(b *box) {
			b.stop(engine.Stop{Reason: caisson.ReasonStopped, Grace: caisson.Duration(5 * time.Second)})
		},
		"destroy": func(b *box) { t.destroy(b.Sandbox) },
	} {
		spec := t.displaying("say ready ; hold")
		b := t.start(spec)
		b.says("ready")
		var all []*viewing
		for _, d := range spec.Displays {
			v := b.look(d.Name)
			v.picture()
			all = append(all, v)
		}
		end(b)
		for _, v := range all {
			if !v.ends() {
				t.Errorf("%s: the stream of display %q goes on", name, v.name)
			}
		}
		b.wait()
		kind := caisson.ErrEnded
		for range 2 {
			if name == "destroy" {
				kind = caisson.ErrAborted
			}
			for range 3 {
				parallel(3, func(int) {
					_, err := b.Sandbox.(engine.Displayer).Displays(t.ctx)
					t.kind(err, name+": Displays afterwards", kind)
					b.noDisplay(spec.Displays[0].Name, kind)
					b.noDisplay("nothing", kind)
				})
			}
			t.destroy(b.Sandbox)
			name = "destroy"
		}
	}
}

func displaysViewers(t *T) {
	spec := t.displaying("trap 10 ; say ready ; await 10 ; say goes on ; hold")
	b := t.start(spec)
	b.says("ready")
	for _, d := range spec.Displays {
		good := b.look(d.Name)
		good.picture()
		// One asks again and again, and never reads.
		deaf := b.open(d.Name)
		var asking sync.WaitGroup
		asking.Go(func() {
			_, err := deaf.Write(append([]byte("RFB 003.008\n"), 1, 1))
			for err == nil {
				_, err = deaf.Write([]byte{3, 0, 0, 0, 0, 0, 0, 64, 0, 48})
			}
		})
		for _, nonsense := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "RFB 003.008\n\xff", "RFB 003.008\n\x01\x01\x06\x00\x00\x00\xff\xff\xff\xff", "RFB 999.999\n\x00"} {
			bad := b.open(d.Name)
			_, _ = io.WriteString(bad, nonsense)
			bad.Close()
		}
		b.open(d.Name).Close()
		good.picture()
		b.look(d.Name).picture()
		if want := b.display(d.Name); want.Name != d.Name {
			t.Errorf("the display is listed as %+v", want)
		}
		deaf.Close()
		asking.Wait()
	}
	b.signal(10)
	b.says("goes on")
}

func displaysFlood(t *T) {
	spec := t.displaying("say ready ; hold")
	b := t.start(spec)
	b.says("ready")
	name := spec.Displays[0].Name
	const many = 100
	streams := make([]io.Closer, many)
	parallel(many, func(i int) {
		stream, err := b.Sandbox.(engine.Displayer).OpenDisplay(t.ctx, name)
		if err == nil {
			streams[i] = stream
			return
		}
		t.kind(err, "OpenDisplay", caisson.ErrExhausted, caisson.ErrUnavailable)
	})
	for _, s := range streams {
		if s != nil {
			s.Close()
		}
	}
	t.eventually("others can look", func() bool {
		stream, err := b.Sandbox.(engine.Displayer).OpenDisplay(t.ctx, name)
		if err == nil {
			stream.Close()
		}
		return err == nil
	})
	b.look(name).picture()
}

func displaysBounded(t *T) {
	spec := t.displaying("say ready ; hold")
	b := t.start(spec)
	b.says("ready")
	over, cancel := context.WithCancel(t.ctx)
	cancel()
	d := b.Sandbox.(engine.Displayer)
	_, list := d.Displays(over)
	stream, open := d.OpenDisplay(over, spec.Displays[0].Name)
	if stream != nil {
		stream.Close()
	}
	for call, err := range map[string]error{"Displays": list, "OpenDisplay": open} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that has ended = %v", call, err)
		}
	}
	// One that ends later takes no stream along.
	brief, cancel := context.WithCancel(t.ctx)
	stream, err := d.OpenDisplay(brief, spec.Displays[0].Name)
	cancel()
	t.ok(err, "OpenDisplay")
	b.at(spec.Displays[0].Name, stream).picture()
}

func displaysPaused(t *T) {
	spec := t.displaying("say ready ; hold")
	b := t.start(spec)
	b.says("ready")
	pauser := b.Sandbox.(engine.Pauser)
	before := b.look(spec.Displays[0].Name)
	before.picture()
	t.ok(pauser.Pause(t.ctx), "Pause")
	if list := b.displays(); len(list) != len(spec.Displays) {
		t.Errorf("Displays of a paused sandbox = %+v", list)
	}
	during := b.look(spec.Displays[0].Name)
	// A server of the task's answers later.
	if t.features.Screen {
		during.picture()
	}
	t.ok(pauser.Resume(t.ctx), "Resume")
	during.picture()
	before.picture()
}

func displaysKept(t *T) {
	spec := t.displaying("say ready ; exit 3")
	spec.Keep = caisson.Duration(time.Minute)
	if t.features.DisplayServers {
		spec.Displays = append(spec.Displays, caisson.Display{Name: "late", Socket: "late.sock"})
	}
	b := t.start(spec)
	b.expect(caisson.ReasonExited, 3, 0)
	if list := b.displays(); len(list) != len(spec.Displays) {
		t.Errorf("Displays of a kept sandbox = %+v", list)
	}
	var last *viewing
	if t.features.Screen {
		last = b.look(spec.Displays[0].Name)
		last.picture()
	}
	if t.features.DisplayServers {
		b.noDisplay("server", caisson.ErrUnavailable)
		b.exec("show /work/late.sock 64x48 ff8000 ; say shown ; hold").reads("shown")
		last = b.look("late")
		last.shows(64, 48, 0xff8000)
	}
	t.destroy(b.Sandbox)
	if !last.ends() {
		t.Errorf("the stream goes on")
	}
	b.noDisplay(spec.Displays[0].Name, caisson.ErrAborted)
}

func displaysRecovered(t *T) {
	t.alone()
	spec := t.displaying("say ready ; hold")
	b := t.start(spec)
	b.says("ready")
	before := b.displays()
	t.restart()
	sb, err := t.engine.Recover(t.ctx, spec.Dir)
	t.ok(err, "Recover")
	found := &box{Sandbox: sb, t: t, spec: spec}
	if after := found.displays(); !slices.Equal(before, after) {
		t.Errorf("Displays = %+v, before %+v", after, before)
	}
	for _, d := range spec.Displays {
		found.look(d.Name).picture()
	}
}

func displaysMistakes(t *T) {
	server := func(name, socket string) caisson.Display { return caisson.Display{Name: name, Socket: socket} }
	for field, list := range map[string][]caisson.Display{
		"displays[1].name":   {server("a", "a"), server("a", "b")},
		"displays[0].name":   {server("", "a")},
		"displays[0].socket": {server("a", "../a")},
		"displays[1].socket": {server("a", "a"), server("b", "/run/b")},
		"displays[0].port":   {{Name: "a", Port: 65536}},
		"displays[0]":        {{Name: "a", Port: 1, Socket: "a"}},
		"displays":           {{Name: "a"}, {Name: "b"}},
	} {
		spec := t.spec("hold")
		spec.Displays = list
		err := t.refused(spec, caisson.ErrInvalid, caisson.ErrUnsupported)
		if errors.Is(err, caisson.ErrUnsupported) {
			field = "displays"
		}
		if err != nil && !strings.Contains(err.Error(), field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
	spec := t.spec("hold")
	spec.Displays, spec.Network = []caisson.Display{{Name: "a", Port: 5900}}, caisson.Network{Mode: caisson.NetworkHost}
	t.refused(spec, caisson.ErrInvalid, caisson.ErrUnsupported, caisson.ErrDenied)
}
