package component_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
)

// box seals by turning a text round, so that tests can be read.
type box struct{}

func (box) Seal(plain string) (string, error) {
	return component.SealedPrefix + "test:" + turn(plain), nil
}

func (box) Unseal(path, sealed string) (string, error) {
	text := strings.TrimPrefix(sealed, component.SealedPrefix+"test:")
	if text == sealed || strings.Contains(text, "bad") {
		return "", &caisson.Error{Item: path, Kind: caisson.ErrInvalid, Err: errors.New("is damaged")}
	}
	return turn(text), nil
}

func turn(s string) string {
	r := []rune(s)
	for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
		r[i], r[j] = r[j], r[i]
	}
	return string(r)
}

func sealed(plain string) string {
	text, _ := box{}.Seal(plain)
	return text
}

func configuration(t testing.TB, text string) *component.Configuration {
	t.Helper()
	return &component.Configuration{ID: "1", File: "config.json", Data: value(t, text)}
}

func row(t testing.TB, text string) component.Row {
	return component.Row{ID: "r", File: "rows/r.json", Data: value(t, text)}
}

// TestMerge checks that rows are put over configurations as PHP's
// array_replace_recursive does.
func TestMerge(t *testing.T) {
	for _, test := range []struct{ name, config, row, want string }{
		{"Nothing", `{"a":1}`, `{}`, `{"a":1}`},
		{"Deep", `{"a":{"b":1,"c":{"d":2}}}`, `{"a":{"c":{"e":3}},"f":4}`, `{"a":{"b":1,"c":{"d":2,"e":3}},"f":4}`},
		{"ListByIndex", `{"l":[1,2,3]}`, `{"l":[9]}`, `{"l":[9,2,3]}`},
		{"LongerList", `{"l":[1]}`, `{"l":[8,9]}`, `{"l":[8,9]}`},
		{"ListOfMappings", `{"l":[{"a":1,"b":2},{"c":3}]}`, `{"l":[{"a":9}]}`, `{"l":[{"a":9,"b":2},{"c":3}]}`},
		{"EmptyList", `{"l":[1,2]}`, `{"l":[]}`, `{"l":[1,2]}`},
		{"ScalarOverTree", `{"a":{"b":1}}`, `{"a":5}`, `{"a":5}`},
		{"TreeOverScalar", `{"a":5}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
		{"NullOver", `{"a":5}`, `{"a":null}`, `{"a":null}`},
		{"NullUnder", `{"a":null}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
		{"MappingOverList", `{"a":[1,2]}`, `{"a":{"1":9}}`, `{"a":[1,9]}`},
		{"NamesOverList", `{"a":[1]}`, `{"a":{"x":9}}`, `{"a":{"0":1,"x":9}}`},
		{"OrderOfConfiguration", `{"b":1,"a":2}`, `{"a":3,"c":4,"b":5}`, `{"b":5,"a":3,"c":4}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := configuration(t, `{"parameters":`+test.config+`}`)
			got, err := (&component.Resolver{}).Resolve(c, row(t, `{"parameters":`+test.row+`}`))
			if err != nil {
				t.Fatal(err)
			}
			if text := compact(t, got.Config.Parameters); text != test.want {
				t.Errorf("merged: %s, want %s", text, test.want)
			}
			if compact(t, c.Data) != `{"parameters":`+test.config+`}` {
				t.Errorf("the configuration was changed: %s", compact(t, c.Data))
			}
		})
	}
	t.Run("ErrProcessorsInBoth", func(t *testing.T) {
		const p = `{"processors":{"before":[{"definition":{"component":"a"}}]}}`
		_, err := (&component.Resolver{}).Resolve(configuration(t, p), row(t, p))
		wantProblem(t, err, "processors", "one of the two")
	})
	t.Run("ProcessorsInOne", func(t *testing.T) {
		const p = `{"processors":{"before":[{"definition":{"component":"a"}}]}}`
		got, err := (&component.Resolver{}).Resolve(configuration(t, p), row(t, `{"processors":{"after":[]}}`))
		if err != nil || len(got.Config.Processors.Before) != 1 {
			t.Errorf("Resolve = %+v, %v", got, err)
		}
	})
	t.Run("ErrInRow", func(t *testing.T) {
		_, err := (&component.Resolver{}).Resolve(configuration(t, `{}`), row(t, `{"storage":{"foo":1}}`))
		wantProblem(t, err, "storage.foo", "unknown key")
	})
}

// library is a folder of variables and shared code.
func library(t testing.TB) *component.Library {
	return &component.Library{Dir: write(t, t.TempDir(), map[string]string{
		"variables/v.yaml":      "variables: [{name: a, type: string}, {name: b}]\nvalues:\n  one: {a: \"x\\\"y\\\\\\n\", b: 5, extra: true}\n  less: {a: 1}\n",
		"shared_code/s.json":    `{"r1":{"code_content":["one","two"]},"r2":{"code_content":"{{ a }}"},"r3":{"code_content":[]}}`,
		"variables/broken.json": `{"variables":5}`,
	})}
}

func TestVariables(t *testing.T) {
	lib := library(t)
	for name, test := range map[string]struct{ config, want string }{
		"Escaped":    {`{"variables_id":"v","variables_values_id":"one","parameters":{"p":"<{{ a }}>","q":"{{b}}"}}`, `{"p":"<x\"y\\\n>","q":"5"}`},
		"Section":    {`{"variables_id":"v","variables_values_id":"one","parameters":{"p":"{{#b}}yes{{/b}}{{^b}}no{{/b}}{{#none}}{{x}}{{/none}}{{^none}}-{{/none}}"}}`, `{"p":"yes-"}`},
		"Delimiters": {`{"variables_id":"v","variables_values_id":"one","parameters":{"p":"{{=<< >>=}}<< b >> {{ b }}<<={{ }}=>>","q":"{{b}}"}}`, `{"p":"5 {{ b }}","q":"5"}`},
		"Comment":    {`{"variables_id":"v","variables_values_id":"one","parameters":{"p":"a{{! nothing }}b"}}`, `{"p":"ab"}`},
		"Key":        {`{"variables_id":"v","variables_values_id":"one","parameters":{"{{b}}":1}}`, `{"5":1}`},
		"NoVariables": {
			`{"parameters":{"p":"{{ a }} {{{"}}`, `{"p":"{{ a }} {{{"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := (&component.Resolver{Library: lib}).Resolve(configuration(t, test.config), row(t, `{}`))
			if err != nil {
				t.Fatal(err)
			}
			if text := compact(t, got.Config.Parameters); text != test.want {
				t.Errorf("parameters %s, want %s", text, test.want)
			}
		})
	}
	const wants = `{"variables_id":"v","variables_values_id":"one","parameters":{"p":"{{a}}{{b}}"}}`
	t.Run("GivenWin", func(t *testing.T) {
		got, err := (&component.Resolver{Library: lib, Variables: map[string]string{"a": "A", "b": "B"}}).Resolve(configuration(t, wants), row(t, `{}`))
		if err != nil || compact(t, got.Config.Parameters) != `{"p":"AB"}` {
			t.Errorf("Resolve = %+v, %v", got, err)
		}
	})
	t.Run("GivenIDWins", func(t *testing.T) {
		_, err := (&component.Resolver{Library: lib, VariableValuesID: "less"}).Resolve(configuration(t, wants), row(t, `{}`))
		wantProblem(t, err, "variables_id", `no value for the variables "b"`)
	})
	for name, test := range map[string]struct {
		config string
		r      component.Resolver
		word   string
		kind   caisson.Kind
	}{
		"Missing":    {`{"variables_id":"v","variables_values_id":"one","parameters":{"p":"{{ z }}{{y}}","q":"{{ z }}"}}`, component.Resolver{}, `placeholders "y", "z"`, caisson.ErrInvalid},
		"NoValues":   {`{"variables_id":"v"}`, component.Resolver{}, `no values for the variables "v"`, caisson.ErrInvalid},
		"NoSet":      {`{"variables_id":"v","variables_values_id":"x"}`, component.Resolver{}, `no values "x"`, caisson.ErrInvalid},
		"NoFile":     {`{"variables_id":"w"}`, component.Resolver{}, `variables/w`, caisson.ErrNotFound},
		"Traversal":  {`{"variables_id":"../v"}`, component.Resolver{}, `no variables`, caisson.ErrNotFound},
		"BrokenFile": {`{"variables_id":"broken"}`, component.Resolver{}, `want a list`, caisson.ErrInvalid},
		"Both":       {wants, component.Resolver{Variables: map[string]string{"a": "1"}, VariableValuesID: "one"}, "one of the two", caisson.ErrInvalid},
		"NoID":       {`{}`, component.Resolver{Variables: map[string]string{"a": "1"}}, "no effect", caisson.ErrInvalid},
		"Unclosed":   {`{"variables_id":"v","variables_values_id":"one","parameters":{"p":"{{#b}}x"}}`, component.Resolver{}, "template", caisson.ErrInvalid},
		"Partial":    {`{"variables_id":"v","variables_values_id":"one","parameters":{"p":"{{> /etc/passwd}}"}}`, component.Resolver{}, "not supported", caisson.ErrInvalid},
		"Raw":        {`{"variables_id":"v","variables_values_id":"one","parameters":{"p":"{{{a}}}"}}`, component.Resolver{}, "no longer JSON", caisson.ErrInvalid},
		"Long":       {`{"variables_id":"v","parameters":{"p":"` + strings.Repeat("{{a}}", 5000) + `"}}`, component.Resolver{Variables: map[string]string{"a": strings.Repeat("x", 10000), "b": ""}}, "too long", caisson.ErrInvalid},
	} {
		t.Run("Err"+name, func(t *testing.T) {
			r := test.r
			r.Library = lib
			_, err := r.Resolve(configuration(t, test.config), row(t, `{}`))
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.word) || component.FaultOf(err) != component.UserFault {
				t.Errorf("Resolve = %v, want %v with %q", err, test.kind, test.word)
			}
		})
	}
	t.Run("ErrRawStructure", func(t *testing.T) {
		// A value that adds keys is checked like any other.
		_, err := (&component.Resolver{Library: lib, Variables: map[string]string{"a": `","x":{"y":"z"},"q":"`, "b": ""}}).Resolve(
			configuration(t, `{"variables_id":"v","action":"{{{a}}}"}`), row(t, `{}`))
		wantProblem(t, err, "x", "unknown key")
	})
}

func TestSharedCode(t *testing.T) {
	lib := library(t)
	c := configuration(t, `{"variables_id":"v","variables_values_id":"one","shared_code_id":"s","shared_code_row_ids":["r1","r2","r3"],
		"parameters":{"script":["begin","{{r1}}","x {{ r2 }} y","{{r3}}","{{b}}"],"text":"{{b}}","mixed":[{"k":["{{r1}}"]},"{{b}}"]}}`)
	got, err := (&component.Resolver{Library: lib, Variables: map[string]string{"a": "A", "b": "B"}}).Resolve(c, row(t, `{}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"script":["begin","one","two","A","B"],"text":"B","mixed":[{"k":["one","two"]},"B"]}`
	if diff := cmp.Diff(want, compact(t, got.Config.Parameters)); diff != "" {
		t.Errorf("parameters, want - got +:\n%s", diff)
	}
	for name, test := range map[string]struct {
		config, word string
		kind         caisson.Kind
	}{
		"Missing": {`{"shared_code_id":"s","shared_code_row_ids":["r1","r9","r8"]}`, `"r9", "r8"`, caisson.ErrInvalid},
		"NoFile":  {`{"shared_code_id":"t","shared_code_row_ids":["r1"]}`, "shared_code/t", caisson.ErrNotFound},
	} {
		t.Run("Err"+name, func(t *testing.T) {
			_, err := (&component.Resolver{Library: lib}).Resolve(configuration(t, test.config), row(t, `{}`))
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.word) {
				t.Errorf("Resolve = %v, want %v with %q", err, test.kind, test.word)
			}
		})
	}
}

func TestVault(t *testing.T) {
	r := &component.Resolver{Unsealer: box{}, Vault: map[string]string{"pw": "s3\"cret", "host": "h"}, VaultSecrets: []string{"s3\"cret"}}
	got, err := r.Resolve(configuration(t, `{"parameters":{"#p":"{{ vault.pw }}","url":"https://{{vault.host}}/{{ vault.pw }}"}}`), row(t, `{}`))
	if err != nil {
		t.Fatal(err)
	}
	if text := compact(t, got.Config.Parameters); text != `{"#p":"s3\"cret","url":"https://h/s3\"cret"}` {
		t.Errorf("parameters %s", text)
	}
	if diff := cmp.Diff([]string{"s3\"cret"}, got.Secrets); diff != "" {
		t.Errorf("secrets %s", diff)
	}
	_, err = r.Resolve(configuration(t, `{"parameters":{"a":"{{ vault.x }}{{vault.y}}"}}`), row(t, `{}`))
	wantProblem(t, err, "", `"vault.x", "vault.y"`)
	t.Run("ErrHidesValues", func(t *testing.T) {
		_, err := r.Resolve(configuration(t, `{"runtime":{"backend":{"type":"{{ vault.pw }}"}}}`), row(t, `{}`))
		if err == nil || strings.Contains(err.Error(), "s3") {
			t.Errorf("Resolve = %v, want an error without the value", err)
		}
	})
}

func TestUnsealing(t *testing.T) {
	r := &component.Resolver{Unsealer: box{}, Definition: definition(t, `{"id":"c","data":{"definition":{"type":"dockerhub","uri":"a"},"image_parameters":{"#own":"`+sealed("operator")+`","plain":1}}}`)}
	got, err := r.Resolve(configuration(t, fmt.Sprintf(`{"parameters":{"#a":%q,"l":[{"#b":%q}],"#o":{"x":"plain","#y":%q},"#list":["plain"],"#e":"","#n":null,"#v":"{{ later }}"}}`,
		sealed("first"), sealed("second"), sealed("third"))), row(t, `{}`))
	if err != nil {
		t.Fatal(err)
	}
	if text := compact(t, got.Config.Parameters); text != `{"#a":"first","l":[{"#b":"second"}],"#o":{"x":"plain","#y":"third"},"#list":["plain"],"#e":"","#n":null,"#v":"{{ later }}"}` {
		t.Errorf("parameters %s", text)
	}
	if diff := cmp.Diff([]string{"first", "operator", "second", "third"}, got.Secrets); diff != "" {
		t.Errorf("secrets %s", diff)
	}
	if compact(t, got.ImageParameters) != `{"#own":"operator","plain":1}` {
		t.Errorf("image parameters %s", compact(t, got.ImageParameters))
	}
	kept, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	again := &component.Resolved{}
	if err := json.Unmarshal(kept, again); err != nil || compact(t, again.Config.Parameters) != compact(t, got.Config.Parameters) {
		t.Errorf("kept and read again: %v", err)
	}
	for name, test := range map[string]struct{ config, path, word string }{
		"Plain":   {`{"parameters":{"#a":"hunter2x"}}`, "parameters.#a", "not encrypted"},
		"Number":  {`{"parameters":{"l":[{"#a":12345678}]}}`, "parameters.l[0].#a", "not encrypted"},
		"Damaged": {`{"parameters":{"#a":"` + component.SealedPrefix + `test:bad"}}`, "parameters.#a", "is damaged"},
		"Legacy":  {`{"parameters":{"#a":"KBC::ProjectSecure::hunter2x"}}`, "parameters.#a", "KBC::ProjectSecure"},
		"Old":     {`{"parameters":{"#a":"KBC::Encrypted==hunter2x"}}`, "parameters.#a", "KBC::Encrypted"},
		"Old2":    {`{"parameters":{"#a":"KBC::ComponentProjectEncrypted==hunter2x"}}`, "parameters.#a", "KBC::ComponentProjectEncrypted"},
		"Azure":   {`{"parameters":{"#a":"KBC::ProjectWideBranchTypeSecureKV::hunter2x"}}`, "parameters.#a", "KBC::ProjectWideBranchTypeSecureKV"},
		"Misuse":  {`{"parameters":{"#a":"` + sealed("operator") + `"}}`, "parameters.#a", "secret of the component itself"},
	} {
		t.Run("Err"+name, func(t *testing.T) {
			_, err := r.Resolve(configuration(t, test.config), row(t, `{}`))
			wantProblem(t, err, test.path, test.word)
			if strings.Contains(err.Error(), "hunter2x") || strings.Contains(err.Error(), "12345678") || strings.Contains(err.Error(), "operator") {
				t.Errorf("%v repeats a secret", err)
			}
		})
	}
	t.Run("ErrAllAtOnce", func(t *testing.T) {
		_, err := r.Resolve(configuration(t, `{"parameters":{"#a":"x","#b":"y"}}`), row(t, `{}`))
		wantProblem(t, err, "parameters.#a", "")
		wantProblem(t, err, "parameters.#b", "")
	})
	t.Run("ErrFiles", func(t *testing.T) {
		_, err := r.Resolve(configuration(t, `{"parameters":{"#a":"x1"}}`), row(t, `{"parameters":{"#b":"y1"}}`))
		if err == nil || !strings.Contains(err.Error(), "config.json: parameters.#a") || !strings.Contains(err.Error(), "rows/r.json: parameters.#b") {
			t.Errorf("Resolve = %v, want each in its file", err)
		}
	})
	t.Run("ErrNoKey", func(t *testing.T) {
		_, err := (&component.Resolver{}).Resolve(configuration(t, `{"parameters":{"#a":"`+sealed("x")+`"}}`), row(t, `{}`))
		wantProblem(t, err, "parameters.#a", "no key")
	})
	t.Run("ErrImageParameters", func(t *testing.T) {
		r := &component.Resolver{Unsealer: box{}, Definition: definition(t, `{"id":"c","data":{"definition":{"type":"dockerhub","uri":"a"},"image_parameters":{"#own":"plain"}}}`)}
		_, err := r.Resolve(configuration(t, `{}`), row(t, `{}`))
		wantProblem(t, err, "image_parameters.#own", "not encrypted")
		if component.FaultOf(err) != component.ApplicationFault {
			t.Errorf("%v is not the application's", err)
		}
	})
}

func TestSeal(t *testing.T) {
	v := value(t, `{"#a":"x","#n":5,"#e":"","#null":null,"#v":"{{ name }}","#mixed":"a {{ name }}","#o":{"x":1,"#y":true},"l":[{"#z":"q"}],"#done":"`+sealed("w")+`","plain":"p"}`)
	got, err := component.Seal(box{}, v)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"#a":"caisson:v1:test:x","#n":"caisson:v1:test:5","#e":"","#null":null,"#v":"{{ name }}","#mixed":"caisson:v1:test:}} eman {{ a","#o":{"x":1,"#y":"caisson:v1:test:eurt"},"l":[{"#z":"caisson:v1:test:q"}],"#done":"caisson:v1:test:w","plain":"p"}`
	if diff := cmp.Diff(want, compact(t, got)); diff != "" {
		t.Errorf("Seal, want - got +:\n%s", diff)
	}
	if _, err := component.Seal(box{}, value(t, `{"a":{"#x":"KBC::Secure::abc"}}`)); err == nil || !strings.Contains(err.Error(), "KBC::Secure,") {
		t.Errorf("Seal of Keboola's cipher = %v, want it named", err)
	}
}

func TestCredentials(t *testing.T) {
	file := filepath.Join(write(t, t.TempDir(), map[string]string{
		"oauth.json": `{"77":{"authorizedFor":"me","#data":"` + sealed("token") + `"},"bad":{"#data":"hunter2x"}}`,
	}), "oauth.json")
	r := &component.Resolver{Credentials: func(id string) (*component.Value, error) {
		return component.ReadCredentials(file, id, box{})
	}}
	got, err := r.Resolve(configuration(t, `{"authorization":{"oauth_api":{"id":77,"version":3}}}`), row(t, `{}`))
	if err != nil {
		t.Fatal(err)
	}
	file1 := compact(t, got.Config.File(&component.FileOptions{}).Get("authorization"))
	if file1 != `{"oauth_api":{"credentials":{"authorizedFor":"me","#data":"token"}}}` || !cmp.Equal(got.Secrets, []string{"token"}) {
		t.Errorf("authorization %s, secrets %v", file1, got.Secrets)
	}
	for id, kind := range map[string]caisson.Kind{"78": caisson.ErrNotFound, "bad": caisson.ErrInvalid} {
		_, err := r.Resolve(configuration(t, `{"authorization":{"oauth_api":{"id":"`+id+`"}}}`), row(t, `{}`))
		if !errors.Is(err, kind) || component.FaultOf(err) != component.UserFault || strings.Contains(err.Error(), "hunter2x") {
			t.Errorf("id %s: %v, want %v", id, err, kind)
		}
	}
	if _, err := (&component.Resolver{}).Resolve(configuration(t, `{"authorization":{"oauth_api":{"id":"1"}}}`), row(t, `{}`)); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("no store: %v, want ErrNotFound", err)
	}
}

func TestReadVault(t *testing.T) {
	dir := write(t, t.TempDir(), map[string]string{"v.yaml": "host: h\nport: 5\n\"#pw\": \"" + sealed("secret") + "\"\n", "bad.yaml": "\"#pw\": hunter2x\n"})
	values, secrets, err := component.ReadVault(filepath.Join(dir, "v.yaml"), box{})
	if diff := cmp.Diff(map[string]string{"host": "h", "port": "5", "pw": "secret"}, values); err != nil || diff != "" || !cmp.Equal(secrets, []string{"secret"}) {
		t.Errorf("ReadVault: %v %s %v", err, diff, secrets)
	}
	if _, _, err := component.ReadVault(filepath.Join(dir, "bad.yaml"), box{}); err == nil || strings.Contains(err.Error(), "hunter2x") {
		t.Errorf("ReadVault of a plain value = %v", err)
	}
}
