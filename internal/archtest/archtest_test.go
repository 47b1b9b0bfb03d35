// Package archtest holds the layers of DESIGN.md: who may import whom, and
// why. It reads the imports that the go command reports, tests left out.
package archtest

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/caissonrun/caisson"

// A rule says what the packages below a folder may import of this module.
// Folders are relative to the module; "." is the root package itself.
type rule struct {
	folder string
	may    []string // folders, each with all below it; "." is only the root
	why    string
}

// rules are matched by the longest folder. A package that no rule names fails
// the test: a new folder needs its place in the layers.
var rules = []rule{
	{".", nil, "the vocabulary is plain data that everyone can share"},
	{"document", []string{".", "internal/fields", "internal/source"}, "reading a document needs only the vocabulary"},
	{"component", []string{".", "internal"}, "the vocabulary of components is plain data and its reading"},
	{"component/seal", []string{".", "component", "internal"}, "sealing knows values, not where they are used"},
	{"component/folder", []string{".", "component", "keeper/redact", "internal"}, "data folders know documents and the safe way to files; archives have no secrets in them"},
	{"engine", []string{".", "internal"}, "the contract for isolation rests on the vocabulary alone"},
	{"engine/attack", []string{".", "engine", "keeper/tasklog", "internal"}, "attacks know the contract and no engine"},
	{"internal/selftest", []string{".", "engine", "executor", "image", "keeper/tasklog", "mount", "stage", "internal"}, "attacks on data go against whatever moves it"},
	{"engine/enginetest", []string{".", "engine", "keeper/tasklog", "internal"}, "the suite knows the contract and no engine"},
	{"engine/mem", []string{".", "engine", "keeper/redact", "keeper/tasklog", "internal", "engine/enginetest/inside"}, "an engine knows the contract, not other engines"},
	{"engine/native", []string{".", "engine", "keeper", "internal"}, "an engine knows the contract, the keeper's client and internal; never another engine, mount, stage or executor"},
	{"engine/oci", []string{".", "engine", "keeper", "internal"}, "an engine knows the contract, the keeper's client and internal; never another engine, image, mount, stage or executor"},
	{"engine/docker", []string{".", "engine", "keeper", "internal"}, "an engine knows the contract, the keeper's client and internal; never another engine, image, mount, stage or executor"},
	{"engine/wasm", []string{".", "engine", "keeper", "internal"}, "an engine knows the contract, the keeper's client and internal; never another engine, image, mount, stage or executor"},
	{"engine/qemu", []string{".", "engine", "keeper", "internal"}, "an engine knows the contract, the keeper's client and internal; never another engine, image, mount, stage or executor"},
	{"engine/script", []string{".", "engine", "keeper", "internal"}, "an engine knows the contract, the keeper's client and internal; what runs its program is given to it"},
	{"engine/internal/kept", []string{".", "engine", "keeper", "internal"}, "what engines share whose programs keepers own; no engine"},
	{"engine/all", []string{".", "engine", "internal", "keeper"}, "the one list of engines"},
	{"keeper", []string{".", "keeper", "internal"}, "the keeper is below the engines"},
	{"mount", []string{".", "mount", "internal"}, "where files come from is no business of engines, and the other way round"},
	{"stage", []string{".", "stage", "internal"}, "engines never touch staging, and staging never engines"},
	{"image", []string{".", "image", "internal"}, "images know the vocabulary and internal; engines are handed a folder"},
	{"executor", []string{".", "engine", "image", "keeper/tasklog", "keeper/redact", "mount", "stage", "internal"}, "the executor knows contracts, not implementations"},
	{"component", []string{".", "component", "internal"}, "the words of components rest on the vocabulary alone"},
	{"component/storage", []string{".", "component", "internal"}, "where tables are kept is no business of what runs"},
	{"component/run", []string{".", "component", "engine", "executor", "image", "keeper/tasklog", "keeper/redact", "stage", "mount", "internal"}, "a component's run is a composite of the executor's tasks"},
	{"frontend", []string{".", "component", "document", "engine", "executor", "image", "keeper/tasklog", "mount", "frontend", "internal"}, "a front door translates to tasks and holds no execution logic"},
	{"app", []string{".", "component", "document", "engine", "executor", "frontend", "image", "keeper", "mount", "stage", "internal", "app"}, "app wires everything"},
	{"cmd", []string{"app", "keeper", "internal"}, "main functions hold no logic"},
	{"internal", []string{".", "internal"}, "internal packages are small nouns below everything"},
	{"internal/bench", []string{".", "app", "component", "document", "engine", "executor", "image", "keeper", "stage", "mount", "internal"}, "benchmarks measure the whole"},
	{"internal/gateway", []string{".", "engine", "keeper/redact", "internal"}, "what is served at a sandbox's sockets knows the contract's words for them, and no engine"},
	{"internal/testimage", nil, "it makes images for tests of anything"},
	{"internal/slowtest", nil, "tests of anything ask it"},
	{"examples", []string{".", "app", "component", "engine", "executor", "mount", "stage"}, "an example is another program: it has what other programs may use"},
	{"internal/archtest", nil, "it only looks"},
}

// forbidden are imports that a package must never have, even where a rule's
// folders would allow them.
var forbidden = []struct{ from, to, why string }{
	{"component/mapping", "component/storage/file", "mapping knows the contract for storages, not one of them"},
	{"component/mapping", "component/storage/sql", "mapping knows the contract for storages, not one of them"},
	{"component/mapping", "component/storage/s3", "mapping knows the contract for storages, not one of them"},
	{"component/mapping", "component/run", "mapping is what a run uses"},
	{"executor", "component", "the executor knows tasks that are made of others, not what they are for"},
	{"executor", "engine/native", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"executor", "engine/mem", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"frontend", "engine/native", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"frontend", "engine/mem", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"executor", "engine/oci", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"executor", "engine/docker", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"frontend", "engine/oci", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"frontend", "engine/docker", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"engine/native", "engine/oci", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/native", "engine/docker", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/oci", "engine/native", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/oci", "engine/docker", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/docker", "engine/native", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/docker", "engine/oci", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"executor", "engine/script", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"frontend", "engine/script", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"engine/script", "engine/native", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/script", "engine/oci", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/script", "engine/docker", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/native", "engine/script", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/oci", "engine/script", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/docker", "engine/script", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/internal", "engine/script", "what engines share is below them"},
	{"engine/internal", "engine/native", "what engines share is below them"},
	{"engine/internal", "engine/oci", "what engines share is below them"},
	{"engine/native", "engine/wasm", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/wasm", "engine/native", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/oci", "engine/wasm", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/wasm", "engine/oci", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/docker", "engine/wasm", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/wasm", "engine/docker", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"executor", "engine/wasm", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"frontend", "engine/wasm", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"engine/internal", "engine/docker", "what engines share is below them"},
	{"engine/internal", "engine/wasm", "what engines share is below them"},
	{"executor", "engine/qemu", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"frontend", "engine/qemu", "nobody outside an engine's folder names that engine: choices are made by Features"},
	{"engine/qemu", "engine/native", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/native", "engine/qemu", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/qemu", "engine/oci", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/oci", "engine/qemu", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/qemu", "engine/docker", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/docker", "engine/qemu", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/qemu", "engine/wasm", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/wasm", "engine/qemu", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/qemu", "engine/script", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/script", "engine/qemu", "an engine never knows another one; what they share is in engine/internal/kept"},
	{"engine/internal", "engine/qemu", "what engines share is below them"},
	{"engine/qemu", "internal/gateway", "engines only know sockets"},
	{"engine/native", "internal/gateway", "engines only know sockets"},
	{"engine/oci", "internal/gateway", "engines only know sockets"},
	{"engine/docker", "internal/gateway", "engines only know sockets"},
	{"engine/wasm", "internal/gateway", "engines only know sockets"},
	{"engine/script", "internal/gateway", "engines only know sockets"},
	{"engine/mem", "internal/gateway", "engines only know sockets"},
	{"engine/internal", "internal/gateway", "engines only know sockets"},
	{"engine/enginetest", "engine/native", "the suite knows the contract and no engine"},
	{"engine/enginetest", "engine/mem", "the suite knows the contract and no engine"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func TestLayers(t *testing.T) {
	for _, p := range packages(t) {
		from := folder(p.ImportPath)
		r := ruleFor(from)
		if r == nil {
			t.Errorf("%s: no rule of the layers names this folder; add one with its reason", from)
			continue
		}
		for _, imp := range p.Imports {
			if imp != module && !strings.HasPrefix(imp, module+"/") {
				if from == "." && strings.Contains(imp, ".") {
					t.Errorf("root package imports %s: it uses the standard library only", imp)
				}
				continue
			}
			to := folder(imp)
			if !allowed(r, from, to) {
				t.Errorf("%s imports %s: %s", from, to, r.why)
			}
			for _, f := range forbidden {
				if below(from, f.from) && below(to, f.to) {
					t.Errorf("%s imports %s: %s", from, to, f.why)
				}
			}
		}
	}
}

// TestKeeperStaysSmall holds what the small program must not link: each of
// these costs memory in every sandbox.
func TestKeeperStaysSmall(t *testing.T) { staysSmall(t, "cmd/caisson-keeper") }

// TestGuestStaysSmall holds the same for the agent, which every machine loads.
func TestGuestStaysSmall(t *testing.T) { staysSmall(t, "cmd/caisson-guest") }

func staysSmall(t *testing.T, program string) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", module+"/"+program)
	cmd.Env = append(cmd.Environ(), "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		switch dep {
		case "net", "net/http", "crypto/tls", "os/exec", "text/template", "regexp":
			t.Errorf("%s links %s: every sandbox pays for it in memory", program, dep)
		}
	}
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Standard", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return list
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		list = append(list, p)
	}
}

func folder(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func ruleFor(path string) *rule {
	var best *rule
	for i, r := range rules {
		if (path == r.folder || r.folder != "." && below(path, r.folder)) && (best == nil || len(r.folder) > len(best.folder)) {
			best = &rules[i]
		}
	}
	return best
}

func allowed(r *rule, from, to string) bool {
	if below(to, r.folder) && r.folder != "." && below(from, r.folder) {
		return true
	}
	for _, m := range r.may {
		if to == m || m != "." && below(to, m) {
			return true
		}
	}
	return false
}
