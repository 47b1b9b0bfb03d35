package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/app"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/internal/gateway"
)

// away is the name of the bench's servers, outside of a sandbox.
const away = "api.bench.example"

// An outside is what tasks reach by their gateways: the same server with TLS and
// without, on the loopback device.
type outside struct {
	bench      *bench
	app        *app.App
	plain, tls string // 127.0.0.1:PORT
	authority  string // the file of who signed for the server
}

// gateways measures one request by a proxy, and one with a brokered secret,
// beside the same one direct, all by curl; and how fast a large file gets
// through an allow-list.
func (b *bench) gateways(ctx context.Context) ([]row, error) {
	if _, err := exec.LookPath("curl"); err != nil {
		return []row{{"gateways", absent("no curl").Error(), "-", "-", "-"}}, nil
	}
	o, stop, err := b.newOutside()
	if err != nil {
		return nil, err
	}
	defer stop()
	rows, err := o.requests(ctx)
	if err != nil {
		return nil, err
	}
	more, err := o.throughput(ctx)
	return append(rows, more...), err
}

// newOutside starts the servers, and wires a Caisson that finds them by name.
func (b *bench) newOutside() (_ *outside, stop func(), err error) {
	o := &outside{bench: b, authority: filepath.Join(b.dir, "authority.pem")}
	pair, roots, err := o.certificate()
	if err != nil {
		return nil, nil, err
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	secure, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*pair}})
	if err != nil {
		plain.Close()
		return nil, nil, err
	}
	o.plain, o.tls = plain.Addr().String(), secure.Addr().String()
	server := &http.Server{Handler: b.answers(), ReadHeaderTimeout: time.Minute}
	for _, l := range []net.Listener{plain, secure} {
		go func() { _ = server.Serve(l) }()
	}
	if o.app, err = o.open(roots); err != nil {
		server.Close()
		return nil, nil, err
	}
	return o, func() { o.app.Close(); server.Close() }, nil
}

// answers is what the servers say: a few bytes, or as many as the bench is to
// move.
func (b *bench) answers() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	block := make([]byte, 1<<20)
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(b.size, 10))
		for left := b.size; left > 0; left -= int64(len(block)) {
			if _, err := w.Write(block[:min(left, int64(len(block)))]); err != nil {
				return
			}
		}
	})
	return mux
}

// certificate makes one that signs for itself.
func (o *outside) certificate() (*tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: away}, DNSNames: []string{away}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, os.WriteFile(o.authority, text, 0o644)
}

// open wires a Caisson on the bench's state folder, for which the name leads to
// the servers.
func (o *outside) open(roots *x509.CertPool) (*app.App, error) {
	cfg, err := app.LoadConfig(&app.ConfigOptions{File: o.bench.config()})
	if err != nil {
		return nil, err
	}
	cfg.State = o.bench.state()
	upstream, err := (&gateway.Upstream{URL: "http://" + o.plain, Token: "of the operator"}).Handler()
	if err != nil {
		return nil, err
	}
	const https = 443
	return app.New(cfg, &app.Options{
		Proxies: map[string]http.Handler{"bench": upstream}, Roots: roots,
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("8.8.4.4")}, nil // never dialled
		},
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			at := o.plain
			if to.Port() == https {
				at = o.tls
			}
			return new(net.Dialer).DialContext(ctx, "tcp", at)
		},
	})
}

// curl prints a line of seconds for each request.
var curl = []string{"curl", "--silent", "--show-error", "--fail", "--fail-early", "--http1.1", "--noproxy", "*", "--output", "/dev/null", "--write-out", `%{time_total}\n`}

// direct has curl do requests on the host.
func (o *outside) direct(ctx context.Context, args ...string) (samples, error) {
	command := append(append(curl[:len(curl):len(curl)],
		"--cacert", o.authority, "--connect-to", away+":443:"+o.tls, "--connect-to", away+":80:"+o.plain), args...)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("curl %q: %w: %.300s", args, err, errors.String())
	}
	return seconds(string(out))
}

// task has curl do requests in a sandbox. What the shell is to fill in is left
// to it.
func (o *outside) task(ctx context.Context, task *caisson.Task, args ...string) (samples, error) {
	const quoted = `'`
	line := ""
	for _, arg := range curl {
		line += quoted + arg + quoted + " "
	}
	task.Run = line + strings.Join(args, " ")
	id, err := o.app.Executor.Submit(ctx, task, &executor.Submission{
		BaseDir: o.bench.dir, Trusted: true, Secrets: map[string][]byte{"TOKEN": []byte("a-token-of-the-bench")},
	})
	if err != nil {
		return nil, err
	}
	if err := o.app.Executor.Attend(ctx, id, false); err != nil {
		return nil, err
	}
	result, err := o.app.Executor.Wait(ctx, id)
	if err != nil {
		return nil, err
	}
	var log strings.Builder
	if err := o.app.Executor.Logs(ctx, id, executor.LogOptions{}, func(r executor.LogRecord) error {
		log.Write(r.Data)
		return nil
	}); err != nil {
		return nil, err
	}
	if !result.Success {
		return nil, fmt.Errorf("task %s: status %d: %s%s: %.300s", id, result.Status, result.Exit.Message, failure(result), log.String())
	}
	return seconds(log.String())
}

// seconds reads what curl prints.
func seconds(text string) (samples, error) {
	var all samples
	for line := range strings.Lines(text) {
		n, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		if err != nil {
			return nil, fmt.Errorf("curl printed %q", line)
		}
		all = append(all, time.Duration(n*float64(time.Second)))
	}
	return all, nil
}

// A pair is one thing done through a gateway and direct.
type pair struct {
	what    string
	through func() (samples, error)
	direct  func() (samples, error)
}

// measure does both in turn, after one round that does not count.
func (p *pair) measure(rounds int) (through, direct samples, err error) {
	for round := range rounds + 1 {
		for i, f := range []func() (samples, error){p.through, p.direct} {
			took, err := f()
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", p.what, err)
			}
			if round > 0 && i == 0 {
				through = append(through, took...)
			} else if round > 0 {
				direct = append(direct, took...)
			}
		}
	}
	return through, direct, nil
}

func (o *outside) proxied() *caisson.Task {
	return &caisson.Task{Proxies: map[string]caisson.Proxy{"bench": {Upstream: "bench"}}}
}

// brokered is a task whose token is for the server alone.
func (o *outside) brokered() *caisson.Task {
	return &caisson.Task{Secrets: map[string]caisson.Secret{"TOKEN": {From: "env:TOKEN", Broker: &caisson.Broker{Host: away}}}}
}

// requests are of a few bytes: many by one connection, then one by each.
func (o *outside) requests(ctx context.Context) ([]row, error) {
	const (
		kept  = "/[1-200]"
		apart = "/[1-50]"
		plain = "http://" + away
		https = "https://" + away
	)
	token := []string{"-H", `"Authorization: Bearer $TOKEN"`}
	closed := []string{"-H", "'Connection: close'"}
	pairs := []pair{
		{
			"request by a proxy",
			func() (samples, error) { return o.task(ctx, o.proxied(), "http://bench"+kept) },
			func() (samples, error) { return o.direct(ctx, plain+kept) },
		},
		{
			"request by a proxy, a connection each",
			func() (samples, error) { return o.task(ctx, o.proxied(), append(closed, "http://bench"+apart)...) },
			func() (samples, error) { return o.direct(ctx, "-H", "Connection: close", plain+apart) },
		},
		{
			"request with a brokered secret, TLS",
			func() (samples, error) { return o.task(ctx, o.brokered(), append(token, https+kept)...) },
			func() (samples, error) { return o.direct(ctx, "-H", "Authorization: Bearer x", https+kept) },
		},
		{
			"request with a brokered secret, TLS, a connection each",
			func() (samples, error) {
				return o.task(ctx, o.brokered(), append(append(closed, token...), https+apart)...)
			},
			func() (samples, error) {
				return o.direct(ctx, "-H", "Connection: close", "-H", "Authorization: Bearer x", https+apart)
			},
		},
	}
	var rows []row
	for _, p := range pairs {
		through, direct, err := p.measure(3)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{p.what, through.String(), "curl, direct: " + direct.String(), ratio(through, direct), "-"})
	}
	return rows, nil
}

// throughput is of one large answer through an allow-list.
func (o *outside) throughput(ctx context.Context) ([]row, error) {
	allowed := func() *caisson.Task {
		return &caisson.Task{
			Network: caisson.Network{Mode: caisson.NetworkAllow, Allow: []string{away + ":443", away + ":80"}},
			Inputs:  []caisson.Input{{From: "file:" + o.authority, To: "authority.pem"}},
		}
	}
	var rows []row
	for _, scheme := range []string{"http", "https"} {
		url := scheme + "://" + away + "/large"
		p := pair{
			o.bench.sizeText() + " through an allow-list, " + scheme,
			func() (samples, error) { return o.task(ctx, allowed(), "--cacert", "authority.pem", url) },
			func() (samples, error) { return o.direct(ctx, url) },
		}
		through, direct, err := p.measure(o.bench.rounds())
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{
			p.what, rate(o.bench.size, through.median()), "curl, direct: " + rate(o.bench.size, direct.median()), ratio(through, direct), "-",
		})
	}
	return rows, nil
}
