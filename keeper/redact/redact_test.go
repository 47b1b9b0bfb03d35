package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/redact"
)

func compile(t testing.TB, secrets ...string) *redact.Set {
	t.Helper()
	var values [][]byte
	for _, s := range secrets {
		values = append(values, []byte(s))
	}
	set, err := redact.Compile(values)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// run redacts the pieces of a stream; with idle it is idle after each.
func run(t testing.TB, set *redact.Set, idle bool, pieces ...string) string {
	t.Helper()
	var out bytes.Buffer
	w := set.NewWriter(func(data []byte) error { out.Write(data); return nil })
	for _, p := range pieces {
		if err := w.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
		if idle {
			w.Idle()
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestRedact(t *testing.T) {
	set := compile(t, "hunter2!", "correct horse", "abcab", "bcabc", "", "line1\nline2\n")
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"nothing here", "nothing here"},
		{"hunter2!", "[redacted]"},
		{"pw=hunter2!\n", "pw=[redacted]\n"},
		{"hunter2!hunter2!", "[redacted][redacted]"},
		{"hunter2hunter2!", "hunter2[redacted]"},
		{"hunter2", "hunter2"},
		{"xabcabcx", "x[redacted]x"}, // two that overlap
		{"correct horse battery", "[redacted] battery"},
		{"correct+horse&x", "[redacted]&x"},
		{"correct%20horse", "[redacted]"},
		{"line1\nline2", "[redacted]"},
		{"line1\r\nline2\r\n.", "[redacted]."},
		{`{"a":"line1\nline2"}`, `{"a":"[redacted]"}`},
	} {
		if got := run(t, set, false, c.in); got != c.want {
			t.Errorf("redact(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestCompileErr(t *testing.T) {
	for _, secret := range []string{"abc", "abc\n", strings.Repeat("x", redact.MaxSecret+1)} {
		_, err := redact.Compile([][]byte{nil, []byte(secret)})
		if !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("Compile of %d bytes = %v, want invalid", len(secret), err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error %q tells the secret", err)
		}
	}
	set := compile(t)
	if !set.Empty() || run(t, set, false, "as it is") != "as it is" {
		t.Error("a set of nothing changes the stream")
	}
}

var samples = []string{
	"s3cr3t!!", "p@ss w0rd/with+all=of&it", "ünïcödé – secret 😀", `quo"te\back` + "\t<tag>",
	"0123456789abcdef0123456789abcdef", "-----BEGIN KEY-----\n" + strings.Repeat("Qw3rtyUiOp+/", 20) + "\n-----END KEY-----\n",
	"\x00\xff\xfe binary \x80",
}

// encodings are how programs print a secret, made by other code than ours.
func encodings(secret string) map[string]string {
	quoted, _ := json.Marshal(secret)
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	enc.Encode(secret)
	all := map[string]string{
		"raw": secret, "hex": hex.EncodeToString([]byte(secret)), "HEX": fmt.Sprintf("%X", secret),
		"std": base64.StdEncoding.EncodeToString([]byte(secret)), "rawstd": base64.RawStdEncoding.EncodeToString([]byte(secret)),
		"url": base64.URLEncoding.EncodeToString([]byte(secret)), "rawurl": base64.RawURLEncoding.EncodeToString([]byte(secret)),
		"query": url.QueryEscape(secret), "path": url.PathEscape(secret),
	}
	if !strings.Contains(secret, "\xff") { // JSON has no such strings
		all["json"] = strings.Trim(string(quoted), `"`)
		all["json plain"] = strings.TrimSuffix(strings.TrimPrefix(plain.String(), `"`), "\"\n")
	}
	return all
}

func TestForms(t *testing.T) {
	for _, secret := range samples {
		set := compile(t, secret)
		for name, text := range encodings(secret) {
			got := run(t, set, false, "before:"+text+":after")
			// A final line end is not part of what is hidden.
			if got != "before:[redacted]:after" && got != "before:[redacted]\n:after" {
				t.Errorf("%s of %q: %q", name, secret, got)
			}
		}
	}
}

// In base64 of longer data, what the secret decides is gone, and nothing else.
func TestBase64Inside(t *testing.T) {
	for _, secret := range samples {
		set := compile(t, secret)
		for before := range 7 {
			for after := range 4 {
				data := strings.Repeat("#", before) + secret + strings.Repeat("%", after)
				for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawURLEncoding} {
					text := enc.EncodeToString([]byte(data))
					got := run(t, set, false, text)
					if !strings.Contains(got, redact.Marker) {
						t.Fatalf("%d bytes, %q, %d bytes: %q is as it was", before, secret, after, got)
					}
					rest := strings.Replace(got, redact.Marker, "", 1)
					if most := (before+after)*8/6 + 6; len(rest) > most {
						t.Fatalf("%d bytes, %q, %d bytes: %q left, at most %d may be", before, secret, after, rest, most)
					}
					head := enc.EncodeToString([]byte(data[:before/3*3]))
					if !strings.HasPrefix(got, head) {
						t.Fatalf("%q does not begin with %q: bytes of others were touched", got, head)
					}
				}
			}
		}
	}
}

func TestBase64Lines(t *testing.T) {
	secret := samples[5]
	out, err := exec.Command("sh", "-c", `printf %s "$1" | base64`, "sh", secret).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := run(t, compile(t, secret), false, string(out))
	if len(got) > len(redact.Marker)+6 {
		t.Errorf("lines of base64: %q", got)
	}
}

// Every form of every secret, cut at every place and at every two places, is
// redacted in the same way as in one piece.
func TestEverySplit(t *testing.T) {
	for _, secret := range samples {
		set := compile(t, secret, "another one", secret[:len(secret)/2]+"!other end")
		for name, text := range encodings(secret) {
			text = "ab" + text + "yz"
			want := run(t, set, false, text)
			for i := range len(text) + 1 {
				if got := run(t, set, false, text[:i], text[i:]); got != want {
					t.Fatalf("%s of %q cut at %d: %q, want %q", name, secret, i, got, want)
				}
				for j := i; j <= len(text) && len(text) < 100; j++ {
					if got := run(t, set, false, text[:i], text[i:j], text[j:]); got != want {
						t.Fatalf("%s of %q cut at %d and %d: %q, want %q", name, secret, i, j, got, want)
					}
				}
			}
			if got := run(t, set, false, strings.Split(text, "")...); got != want {
				t.Fatalf("%s of %q byte by byte: %q, want %q", name, secret, got, want)
			}
		}
	}
}

// A stream that pauses in the middle of a secret tells at most half of it.
func TestIdle(t *testing.T) {
	secret := "0123456789"
	set := compile(t, secret)
	for i := range len(secret) + 1 {
		got := run(t, set, true, "pw: "+secret[:i], secret[i:]+".")
		want := "pw: [redacted]."
		if i > 0 && i <= len(secret)/2 {
			want = "pw: " + secret[:i] + "[redacted]."
		}
		if got != want {
			t.Errorf("pause after %d: %q, want %q", i, got, want)
		}
	}
	// Byte by byte, half is told before the rest is held.
	if got, want := run(t, set, true, strings.Split(secret+".", "")...), "01234[redacted]."; got != want {
		t.Errorf("byte by byte: %q, want %q", got, want)
	}
	// What is no secret after all comes out whole.
	if got, want := run(t, set, true, "012345678", "x"), "012345678x"; got != want {
		t.Errorf("no secret: %q, want %q", got, want)
	}
}

func TestIdleShowsAPrompt(t *testing.T) {
	var out strings.Builder
	w := compile(t, "> secret").NewWriter(func(data []byte) error { out.Write(data); return nil })
	w.Write([]byte("name> "))
	if out.String() != "name" || !w.Holds() {
		t.Errorf("before: %q, holds %v; want name, true", out.String(), w.Holds())
	}
	w.Idle()
	if out.String() != "name> " || w.Holds() {
		t.Errorf("after Idle: %q, holds %v; want all of it, false", out.String(), w.Holds())
	}
}

func TestSinkError(t *testing.T) {
	full := errors.New("full")
	calls := 0
	w := compile(t, "secret").NewWriter(func([]byte) error { calls++; return full })
	if err := w.Write([]byte("x secret y")); !errors.Is(err, full) {
		t.Errorf("Write = %v, want %v", err, full)
	}
	if err := w.Write([]byte("more")); !errors.Is(err, full) || calls != 2 {
		t.Errorf("second Write = %v after %d calls, want %v after 2", err, calls, full)
	}
}

// model is redaction by its definition: every byte that lies in an occurrence
// goes, and each run of overlapping occurrences becomes one marker.
func model(text string, secrets []string) string {
	var out strings.Builder
	end, done := 0, 0
	for i := range len(text) {
		longest := 0
		for _, s := range secrets {
			if strings.HasPrefix(text[i:], s) {
				longest = max(longest, len(s))
			}
		}
		if longest == 0 || i+longest <= end {
			continue
		}
		if i >= end {
			out.WriteString(text[done:i] + redact.Marker)
		}
		end = i + longest
		done = end
	}
	return out.String() + text[done:]
}

// A small alphabet makes for many overlaps and near misses.
func TestModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "~^ "[rnd.IntN(3)]
		}
		return string(b)
	}
	for range 3000 {
		var secrets []string
		for range 1 + rnd.IntN(4) {
			secrets = append(secrets, word(4+rnd.IntN(5)))
		}
		text := word(rnd.IntN(200))
		want := model(text, secrets)
		set := compile(t, secrets...)
		var pieces []string
		for rest := text; rest != ""; {
			n := 1 + rnd.IntN(len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		if got := run(t, set, false, pieces...); got != want {
			t.Fatalf("redact(%q, %q) = %q, want %q", pieces, secrets, got, want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("s3cr3t!!", "a s3cr3t!! b", 4, 7)
	f.Add("aaaa", "aaaaaaaaa", 1, 2)
	f.Add("ab\ncd\n", "YWIKY2QK", 2, 5)
	f.Fuzz(func(t *testing.T, secret, text string, i, j int) {
		set, err := redact.Compile([][]byte{[]byte(secret)})
		if err != nil {
			return
		}
		n := len(text) + 1
		i, j = (i%n+n)%n, (j%n+n)%n
		i, j = min(i, j), max(i, j)
		whole := run(t, set, false, text)
		if got := run(t, set, false, text[:i], text[i:j], text[j:]); got != whole {
			t.Fatalf("cut at %d and %d: %q, want %q", i, j, got, whole)
		}
		if secret != "" && !strings.Contains(redact.Marker, secret) && strings.Contains(text, secret) &&
			!strings.Contains(whole, redact.Marker) {
			t.Fatalf("%q still holds the secret", whole)
		}
		if got := run(t, set, true, text[:i], text[i:j], text[j:]); len(strings.ReplaceAll(got, redact.Marker, "")) < len(strings.ReplaceAll(whole, redact.Marker, "")) {
			t.Fatalf("pauses lose bytes: %q, want %q", got, whole)
		}
	})
}

func bench(b *testing.B, line func(secrets []string, i int) string) {
	rnd := rand.New(rand.NewPCG(1, 1))
	var secrets []string
	for range 50 {
		s := make([]byte, 12+rnd.IntN(40))
		for i := range s {
			s[i] = byte('!' + rnd.IntN(94))
		}
		secrets = append(secrets, string(s))
	}
	set := compile(b, secrets...)
	var data []byte
	for i := 0; len(data) < 64<<10; i++ {
		data = append(data, line(secrets, i)...)
	}
	data = data[:64<<10]
	w := set.NewWriter(func([]byte) error { return nil })
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		w.Write(data)
	}
}

func BenchmarkText(b *testing.B) {
	bench(b, func(_ []string, i int) string {
		return fmt.Sprintf("2026-01-02T03:04:05Z INFO request %d served path=/api/v1/things status=200 took=%dms\n", i, i%97)
	})
}

func BenchmarkBase64Text(b *testing.B) {
	rnd := rand.New(rand.NewPCG(2, 2))
	bench(b, func([]string, int) string {
		line := make([]byte, 57)
		for i := range line {
			line[i] = byte(rnd.Uint32())
		}
		return base64.StdEncoding.EncodeToString(line) + "\n"
	})
}

func BenchmarkManySecrets(b *testing.B) {
	bench(b, func(secrets []string, i int) string { return "token=" + secrets[i%len(secrets)] + "\n" })
}
