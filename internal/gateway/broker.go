package gateway

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
)

// An exchange is one request to a host that secrets are for, with what is to be
// taken out of its answer.
type exchange struct {
	host  *brokerHost
	swaps swaps
}

type exchangeKey struct{}

func newExchange(host *brokerHost) *exchange {
	x := &exchange{host: host}
	for _, s := range host.secrets {
		x.swaps = append(x.swaps, s.swaps...)
	}
	return x
}

// prepare puts values in the place of placeholders, in the headers that they are
// for, and sees to it that the answer can be looked through.
func (x *exchange) prepare(h http.Header) {
	replaced := false
	for _, s := range x.host.secrets {
		values := h[s.header]
		for i, old := range values {
			values[i] = x.value(old, s)
			replaced = replaced || values[i] != old
		}
	}
	if replaced {
		// Parts of an answer would be parts of a value.
		h.Del("Range")
		h.Del("If-Range")
	}
	h.Set("Accept-Encoding", "identity")
	h.Del("Sec-Websocket-Extensions") // compression among them
}

// value returns a header's value with a secret put in, also inside of what Basic
// authentication encodes. What was encoded is to be taken out of the answer, too.
func (x *exchange) value(old string, s secret) string {
	if strings.Contains(old, s.Placeholder) {
		return strings.ReplaceAll(old, s.Placeholder, s.Value)
	}
	scheme, encoded, decoded, ok := basic(old)
	if !ok || !strings.Contains(decoded, s.Placeholder) {
		return old
	}
	value := base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(decoded, s.Placeholder, s.Value)))
	x.swaps = append(x.swaps, swap{[]byte(value), []byte(encoded)})
	return scheme + value
}

// basic takes a value of Basic authentication apart.
func basic(value string) (scheme, encoded, decoded string, ok bool) {
	const name = "basic "
	if len(value) < len(name) || !strings.EqualFold(value[:len(name)], name) {
		return "", "", "", false
	}
	encoded = strings.TrimLeft(value[len(name):], " ")
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		if text, err = base64.RawStdEncoding.DecodeString(encoded); err != nil {
			return "", "", "", false
		}
	}
	return value[:len(value)-len(encoded)], encoded, string(text), true
}

// stray returns what is wrong with a request that would tell a placeholder to
// somebody whom its secret is not for, empty if nothing is. The placeholder alone is
// worth nothing; who sends it has made a mistake, or is trying what happens.
func (s *Server) stray(r *http.Request, e endpoint) string {
	for _, secret := range s.plan.secrets {
		if secret.at != e && sees(r, secret.Placeholder) {
			return "the placeholder of the secret " + clip(secret.Name) + ", which is for " + secret.at.String() + " only"
		}
	}
	return ""
}

// sees reports whether a text is in a request's target or headers.
func sees(r *http.Request, text string) bool {
	if strings.Contains(r.RequestURI, text) || strings.Contains(r.Host, text) {
		return true
	}
	for key, values := range r.Header {
		if strings.Contains(strings.ToLower(key), strings.ToLower(text)) {
			return true
		}
		for _, v := range values {
			_, _, decoded, _ := basic(v)
			if strings.Contains(v, text) || strings.Contains(decoded, text) {
				return true
			}
		}
	}
	return false
}

// broker forwards requests to a host that secrets are for.
func (s *Server) broker(d *dest) http.Handler {
	proxy := s.reverse(d)
	proxy.Transport = silent{d.transport}
	proxy.ModifyResponse = func(res *http.Response) error {
		// Another protocol could reach that host with nobody looking.
		res.Header.Del("Alt-Svc")
		return res.Request.Context().Value(exchangeKey{}).(*exchange).swaps.clean(res)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := newExchange(d.broker)
		x.prepare(r.Header)
		proxy.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
	})
}

// silent sends requests so that nothing but the answer comes back: informational
// responses would pass ModifyResponse by.
type silent struct{ transport http.RoundTripper }

func (t silent) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.transport.RoundTrip(r.WithContext(bare{r.Context()}))
	if res != nil {
		res.Request = r
	}
	return res, err
}

// bare is a context without its values.
type bare struct{ context.Context }

func (bare) Value(any) any { return nil }
