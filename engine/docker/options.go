package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
)

// A choice is what a task says in its options, and what follows from its gpus.
type choice struct {
	ReadOnly bool   `json:"readonly"` // the image's files can't be changed
	Shm      string `json:"shm"`      // size of /dev/shm

	shmSize caisson.Bytes
	gpus    []container.DeviceRequest
}

// standardShm is the size of /dev/shm where nothing else is asked for.
const standardShm = 64 * caisson.MiB

func (c *choice) shm() caisson.Bytes {
	if c.shmSize > 0 {
		return c.shmSize
	}
	return standardShm
}

// readOptions reads a task's options.
func readOptions(data json.RawMessage) (*choice, error) {
	c := new(choice)
	if len(data) == 0 {
		return c, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, kept.Invalid("options", fmt.Errorf("%w: there are readonly: true, and shm: a size", err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, kept.Invalid("options", errors.New("more than one value"))
	}
	if c.Shm == "" {
		return c, nil
	}
	size, err := caisson.ParseBytes(c.Shm)
	if err != nil || size <= 0 {
		return nil, kept.Invalid("options.shm", fmt.Errorf("%q is no size such as 64m", c.Shm))
	}
	c.shmSize = size
	return c, nil
}

// permit refuses what the daemon can't do or the operator does not permit.
func (o *Options) permit(f *found, s *engine.Spec) (*choice, error) {
	c, err := readOptions(s.Options)
	if err != nil {
		return nil, err
	}
	features := o.features(f)
	if !features.Usable {
		return nil, kept.Unsupported("engine", f.broken)
	}
	if err := features.Check(s); err != nil {
		return nil, err
	}
	if err := checkDNS(s.DNS); err != nil {
		return nil, err
	}
	for _, a := range attachments(&s.Network) {
		if err := o.mayAttach(a.Name); err != nil {
			return nil, err
		}
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Image == "" {
		return nil, kept.Unsupported("image", errors.New("this engine runs images only; set one"))
	}
	if c.gpus, err = parseGPUs(s.GPUs); err != nil {
		return nil, err
	}
	return c, nil
}

// attachments are the networks that a task names.
func attachments(n *caisson.Network) []caisson.NetworkAttach {
	switch n.Mode {
	case "", caisson.NetworkNone, caisson.NetworkDefault, caisson.NetworkHost, caisson.NetworkAllow:
		return n.Attach
	}
	return append([]caisson.NetworkAttach{{Name: n.Mode}}, n.Attach...)
}

// checkDNS refuses what would be more than it says in resolv.conf.
func checkDNS(d *caisson.DNS) error {
	if d == nil {
		return nil
	}
	for i, server := range d.Servers {
		if _, err := netip.ParseAddr(server); err != nil {
			return kept.Invalid(fmt.Sprintf("dns.servers[%d]", i), fmt.Errorf("%q is no address", server))
		}
	}
	for field, words := range map[string][]string{"search": d.Search, "options": d.Options} {
		for i, word := range words {
			if word == "" || strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' || r == '#' || r == ';' }) {
				return kept.Invalid(fmt.Sprintf("dns.%s[%d]", field, i), fmt.Errorf("%q is no word", word))
			}
		}
	}
	return nil
}

// mayAttach decides about a network that a task names.
func (o *Options) mayAttach(name string) error {
	bad := name == "" || name == "host" || name == "none" || name == "default" ||
		strings.HasPrefix(name, "container:") || strings.HasPrefix(name, "ns:")
	if bad || len(o.Networks) > 0 && !slices.Contains(o.Networks, name) {
		return kept.Denied("network", fmt.Errorf("%q is not one that tasks may name (engine.docker.networks)", name))
	}
	return nil
}

// parseGPUs reads what `docker run --gpus` takes: all, a number, or pairs such
// as "device=0,1" with capabilities, count, driver and options.
func parseGPUs(text string) ([]container.DeviceRequest, error) {
	if text == "" {
		return nil, nil
	}
	r := container.DeviceRequest{Capabilities: [][]string{{"gpu"}}}
	bad := func(why string) ([]container.DeviceRequest, error) {
		return nil, kept.Invalid("gpus", fmt.Errorf("%q: %s; write all, a number, or device=ID[,ID]", text, why))
	}
	counted := false
	for i, field := range splitGPUs(text) {
		key, value, pair := strings.Cut(field, "=")
		if !pair {
			key, value = "count", field
			if i > 0 {
				return bad("only the first may stand without a name")
			}
		}
		switch key {
		case "count":
			counted = true
			if value == "all" {
				r.Count = -1
				continue
			}
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return bad("no count of devices")
			}
			r.Count = n
		case "device":
			r.DeviceIDs = strings.Split(value, ",")
		case "driver":
			r.Driver = value
		case "capabilities":
			r.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case "options":
			r.Options = map[string]string{}
			for o := range strings.SplitSeq(value, ",") {
				k, v, _ := strings.Cut(o, "=")
				r.Options[k] = v
			}
		default:
			return bad("unknown word " + strconv.Quote(key))
		}
	}
	switch {
	case counted && len(r.DeviceIDs) > 0:
		return bad("count and device exclude each other")
	case !counted && len(r.DeviceIDs) == 0:
		r.Count = 1
	}
	return []container.DeviceRequest{r}, nil
}

// splitGPUs splits at commas that are not between quotes, as a line of CSV. A
// part without a name belongs to the one before it: "device=0,1".
func splitGPUs(text string) []string {
	var fields []string
	quoted, start := false, 0
	for i := 0; i <= len(text); i++ {
		switch {
		case i < len(text) && text[i] == '"':
			quoted = !quoted
		case i == len(text) || text[i] == ',' && !quoted:
			field := strings.ReplaceAll(text[start:i], `"`, "")
			if n := len(fields); n > 0 && !strings.Contains(field, "=") {
				fields[n-1] += "," + field
			} else {
				fields = append(fields, field)
			}
			start = i + 1
		}
	}
	return fields
}
