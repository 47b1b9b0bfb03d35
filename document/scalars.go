package document

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// The kinds of single values that documents are made of. Patterns say what a
// JSON Schema can say; Check functions say the rest, and say it better.

// line is one line of free text.
func line(want string) *fields.Type {
	return &fields.Type{Form: fields.Text, Want: want, NotEmpty: true, MaxLength: 4096}
}

// word is text of a pattern.
func word(want, pattern string) *fields.Type {
	return &fields.Type{Form: fields.Text, Want: want, Pattern: fields.Match(pattern)}
}

func enum(values ...string) *fields.Type {
	return &fields.Type{Form: fields.Text, Enum: values}
}

func toggle() *fields.Type { return &fields.Type{Form: fields.Flag} }

func whole(want string, least, most float64) *fields.Type {
	return &fields.Type{Form: fields.Whole, Want: want, Min: least, Max: most}
}

func list(elem *fields.Type) *fields.Type { return &fields.Type{Form: fields.Series, Elem: elem} }

func duration() *fields.Type {
	return &fields.Type{
		Form:    fields.Text,
		Name:    "duration",
		Want:    "a duration such as 250ms, 30s, 10m or 1h30m, or a number of seconds",
		Numbers: fields.WholeNumbers,
		Max:     1<<32 - 1,
		Pattern: fields.Match(`[0-9]+|([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+`),
		Check:   check(caisson.ParseDuration),
	}
}

func size() *fields.Type {
	return &fields.Type{
		Form:    fields.Text,
		Name:    "size",
		Want:    "a size such as 64m or 1g, or a number of bytes",
		Numbers: fields.WholeNumbers,
		Max:     1 << 62,
		Pattern: fields.Match(`[0-9]+ ?[bB]?|[0-9]+(\.[0-9]+)? ?[kKmMgGtT]([iI]?[bB])?`),
		Check:   check(caisson.ParseBytes),
	}
}

func cpus() *fields.Type {
	return &fields.Type{
		Form:    fields.Text,
		Want:    "a number of cores such as 0.5 or 2",
		Numbers: fields.AnyNumbers,
		Max:     1e6,
		Pattern: fields.Match(`[0-9]+(\.[0-9]*)?|\.[0-9]+`),
		Check:   check(caisson.ParseCPUs),
	}
}

// check makes a Check function of a parser.
func check[T any](parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		_, err := parse(s)
		return err
	}
}

func digest() *fields.Type {
	t := word("a SHA-256 digest: 64 hexadecimal digits", `[0-9a-fA-F]{64}`)
	t.Convert = func(v any) any { return strings.ToLower(v.(string)) }
	return t
}

// mode is the permission bits of a file. A number is refused, because 0755 is
// one number to YAML 1.1 and another to YAML 1.2.
func mode() *fields.Type {
	return word(`permission bits as octal digits in quotes, such as "0755"`, `0?[0-7]{3}`)
}

// workPath is a path below the work folder.
func workPath() *fields.Type {
	t := word("a path in the work folder such as in/data.csv, without .. and not beginning with /",
		`[^/\x00-\x1F\x7F][^\x00-\x1F\x7F]*`)
	t.Name, t.MaxLength, t.Check, t.Deny = "work_path", 4096, checkWorkPath, parent()
	t.Convert = cleanWorkPath
	return t
}

// cleanWorkPath makes ./a//b of a path a/b. A slash at the end, which says that
// it is a folder, stays.
func cleanWorkPath(v any) any {
	s := v.(string)
	clean := path.Clean(s)
	if clean != "." && strings.HasSuffix(s, "/") {
		clean += "/"
	}
	return clean
}

// parent matches paths with .. in them.
func parent() *fields.Pattern { return fields.Contain(`(^|/)\.\.(/|$)`) }

func checkWorkPath(s string) error {
	switch {
	case s == "":
		return errors.New("is empty; want a path in the work folder such as in/data.csv")
	case path.IsAbs(s):
		return fmt.Errorf("%q is absolute; want a path in the work folder such as in/data.csv", short(s))
	case hasParent(s):
		return fmt.Errorf("%q leads out of the work folder", short(s))
	}
	return checkNames(s)
}

func hasParent(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// checkNames refuses what no file system takes.
func checkNames(s string) error {
	for part := range strings.SplitSeq(s, "/") {
		if len(part) > 255 {
			return fmt.Errorf("the name %q is longer than 255 bytes", short(part))
		}
	}
	return nil
}

// insidePath is a path inside of the sandbox, absolute or in the work folder.
func insidePath(want string) *fields.Type {
	t := word(want, `[^\x00-\x1F\x7F]+`)
	t.MaxLength, t.Deny = 4096, parent()
	t.Check = func(s string) error {
		if path.IsAbs(s) {
			return checkAbsolute(s)
		}
		return checkWorkPath(s)
	}
	return t
}

// absolute is an absolute path inside of the sandbox.
func absolute() *fields.Type {
	t := word("an absolute path such as /data", `/[^\x00-\x1F\x7F]*`)
	t.MaxLength, t.Check, t.Deny = 4096, checkAbsolute, parent()
	return t
}

func checkAbsolute(s string) error {
	switch {
	case !path.IsAbs(s):
		return fmt.Errorf("%q is not absolute; want a path such as /data", short(s))
	case hasParent(s):
		return fmt.Errorf("%q has .. in it; write the path without", short(s))
	}
	return checkNames(s)
}

// glob is a pattern of paths below the work folder.
func glob() *fields.Type {
	t := workPath()
	t.Name, t.Convert = "", func(v any) any { return strings.TrimPrefix(v.(string), "./") }
	t.Want = "a path or pattern in the work folder such as out/*.csv or out/**"
	t.Check = func(s string) error {
		if err := checkWorkPath(s); err != nil {
			return err
		}
		if !doublestar.ValidatePattern(s) {
			return fmt.Errorf("%q is not a valid pattern; see to its brackets", short(s))
		}
		return nil
	}
	return t
}

// location is a URL of data outside: scheme, colon, and what the scheme wants.
func location() *fields.Type {
	t := word(`a URL such as "file:./data.csv" or "https://example.com/data.csv"`,
		`[A-Za-z][A-Za-z0-9+.-]+:[^\x00-\x1F\x7F]+`)
	t.MaxLength, t.Check = 8192, checkLocation
	return t
}

func checkLocation(s string) error {
	scheme, rest, ok := strings.Cut(s, ":")
	switch {
	case !ok, len(scheme) < 2, strings.Contains(scheme, "/"):
		return fmt.Errorf("%q has no scheme; for a file of this host write \"file:%s\"", short(s), short(s))
	case rest == "":
		return fmt.Errorf("%q names nothing after its scheme", short(s))
	case scheme == "file" || !strings.HasPrefix(rest, "//"):
		return nil
	}
	// A message never repeats a URL, which may hold a password.
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return fmt.Errorf("the %s URL has no valid host", scheme)
	}
	if password, set := u.User.Password(); set && !strings.HasPrefix(password, "$") {
		return fmt.Errorf("the %s URL has a password in it; make it a secret and write its name, $NAME", scheme)
	}
	return nil
}

func image() *fields.Type {
	const (
		part   = `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
		domain = `([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?/`
		tag    = `:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
		digest = `@sha256:[0-9a-f]{64}|@sha512:[0-9a-f]{128}`
	)
	t := word("an image's name such as busybox:stable or registry.example.com/team/tool@sha256:...",
		`(docker://)?(`+domain+`)?`+part+`(/`+part+`)*(`+tag+`)?(`+digest+`)?`+
			// Of these the engine knows more than can be said here; of ACI images
			// that there are none.
			`|(oci|oci-archive|docker-archive):[^\s:]+(:[^\s]+)?|https://[^\s]+`+
			`|[^\s]+\.aci|[^\s]+,version=[^\s]+|sha512-[0-9a-f]{6,128}`)
	t.Name, t.MaxLength = "image", 4096
	return t
}

func user() *fields.Type {
	t := word(`a user as "1000", "1000:1000", "name" or "name:group"`, `(`+idOrName+`)(:(`+idOrName+`))?`)
	t.Numbers, t.Check = fields.WholeNumbers, checkUser
	t.Max = maxID
	return t
}

func group() *fields.Type {
	t := word("a group's name or id", idOrName)
	t.Numbers, t.Check = fields.WholeNumbers, checkID
	t.Max = maxID
	return t
}

const (
	idOrName = `[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?`
	// maxID is the largest user or group id. The one after it means "no
	// change" to the kernel.
	maxID = 1<<32 - 2
)

func checkUser(s string) error {
	name, group, both := strings.Cut(s, ":")
	if err := checkID(name); err != nil {
		return err
	}
	if both {
		return checkID(group)
	}
	return nil
}

func checkID(s string) error {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err != nil || n > maxID {
		return fmt.Errorf("%q is not an id; ids are 0 to %d", short(s), uint32(maxID))
	}
	return nil
}

func hostname() *fields.Type {
	const label = `[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?`
	t := word("a host name of letters, digits, hyphens and dots", label+`(\.`+label+`)*`)
	t.MaxLength = 64 // what the kernel takes
	return t
}

func signal() *fields.Type {
	t := word("a signal's name such as TERM, or its number", `([sS][iI][gG])?[A-Za-z]+[0-9]?|[0-9]{1,2}`)
	t.Numbers, t.Min, t.Max, t.Check = fields.WholeNumbers, 1, 64, check(caisson.ParseSignal)
	return t
}

func port(least float64) *fields.Type {
	return whole(fmt.Sprintf("a port, %v to 65535", least), least, 65535)
}

func address() *fields.Type {
	t := word("an IP address", `[0-9A-Fa-f:.]+`)
	t.Check = func(s string) error {
		if _, err := netip.ParseAddr(s); err != nil {
			return fmt.Errorf("%q is not an IP address", short(s))
		}
		return nil
	}
	return t
}

// dnsName is a host's name as it stands in rules: underscores are no host names,
// but services have them.
const dnsName = `[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*`

// endpoint is what an allow-list names: a host, or all below a domain, with a
// port.
func endpoint() *fields.Type {
	t := word("a host and port such as example.com:443, *.example.com:443, 192.0.2.1:5432 or [2001:db8::1]:443",
		`((\*\.)?`+dnsName+`|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}`)
	t.Check = checkEndpoint
	return t
}

func checkEndpoint(s string) error {
	host, port := splitEndpoint(s)
	if port == "" {
		return fmt.Errorf("%q has no port; want a host and port such as example.com:443", short(s))
	}
	if err := checkPort(s, port); err != nil {
		return err
	}
	return checkHost(host)
}

// splitEndpoint splits at the colon before a port, if there is one.
func splitEndpoint(s string) (host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasPrefix(s, "[") && i < strings.IndexByte(s, ']') {
		return s, ""
	}
	return s[:i], s[i+1:]
}

func checkPort(s, port string) error {
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q: the port is not 1 to 65535", short(s))
	}
	return nil
}

// lastNumber matches names that some programs take for an address: their last
// part is a number.
var lastNumber = fields.Match(`(.*\.)?(0[xX][0-9A-Fa-f]*|[0-9]+)`)

// checkHost looks at a host's name, or its address in the one spelling of it.
func checkHost(host string) error {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !addr.Is6() {
			return fmt.Errorf("%q is not an IP address of version 6", short(host))
		}
		if addr.Is4In6() {
			return fmt.Errorf("%q: write it as %s", short(host), addr.Unmap())
		}
		return nil
	}
	if lastNumber.Matches(host) {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("%q is not a name, and as an address it would be four numbers of 0 to 255", short(host))
		}
		return nil
	}
	if len(host) > 253 {
		return fmt.Errorf("%q is longer than 253 characters", short(host))
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(label) > 63 {
			return fmt.Errorf("%q: a part of it is longer than 63 characters", short(host))
		}
	}
	return nil
}

// brokerHost is where a brokered secret goes: a host, perhaps with a port, and
// with http:// before it where there is no TLS to carry the value.
func brokerHost() *fields.Type {
	t := word("a host such as api.example.com or api.example.com:8443; with http:// before it where it has no TLS",
		`(https?://)?(`+dnsName+`|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?`)
	t.MaxLength, t.Check = 270, checkBrokerHost
	t.Convert = func(v any) any { return strings.TrimPrefix(v.(string), "https://") }
	return t
}

func checkBrokerHost(s string) error {
	rest := strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	if strings.Contains(rest, "/") {
		return fmt.Errorf("%q: want a host alone, or with http:// before it where it has no TLS", short(s))
	}
	host, port := splitEndpoint(rest)
	if port != "" {
		if err := checkPort(s, port); err != nil {
			return err
		}
	}
	return checkHost(host)
}

// short cuts outside text that goes into a message.
func short(s string) string {
	const most = 60
	if r := []rune(s[:min(len(s), 5*most)]); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}
