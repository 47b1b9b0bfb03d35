package component_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson/component"
)

func value(t testing.TB, text string) *component.Value {
	t.Helper()
	v := &component.Value{}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestValueKeepsOrderAndNumbers(t *testing.T) {
	const text = `{"z":1.0,"a":[1e5,-0,12345678901234567890,null,true],"m":{},"<é>":"</&>"}`
	got, err := value(t, text).MarshalJSON()
	if err != nil || string(got) != text {
		t.Errorf("MarshalJSON() = %s, %v, want %s", got, err, text)
	}
}

func TestEncode(t *testing.T) {
	v := value(t, `{"p":{"a":{},"l":[],"n":[{}]},"s":"é/\"\\\u0000\u001f\ud83d\ude00\t","e":{},"x":[1.0,null]}`)
	want := `{
    "p": {
        "a": {},
        "l": [],
        "n": [
            {}
        ]
    },
    "s": "\u00e9\/\"\\\u0000\u001f\ud83d\ude00\t",
    "e": {},
    "x": [
        1.0,
        null
    ]
}`
	if diff := cmp.Diff(want, string(v.Encode(component.Encoding{}))); diff != "" {
		t.Errorf("Encode, want - got +:\n%s", diff)
	}
	t.Run("EmptyLists", func(t *testing.T) {
		v := value(t, `{"p":{"a":{}},"e":{}}`)
		want := "{\n    \"p\": {\n        \"a\": []\n    },\n    \"e\": {}\n}"
		if diff := cmp.Diff(want, string(v.Encode(component.Encoding{EmptyLists: true}))); diff != "" {
			t.Errorf("Encode, want - got +:\n%s", diff)
		}
	})
	t.Run("ReadAgain", func(t *testing.T) {
		again := value(t, string(v.Encode(component.Encoding{})))
		a, _ := v.MarshalJSON()
		b, _ := again.MarshalJSON()
		if string(a) != string(b) {
			t.Errorf("read again: %s, want %s", b, a)
		}
	})
}

func TestValueSetAndRemove(t *testing.T) {
	v := value(t, `{"a":1,"b":2,"c":3}`)
	v.Set("b", component.NewString("x"))
	v.Remove("a")
	v.Set("d", component.NewBool(true))
	if got, _ := v.MarshalJSON(); string(got) != `{"b":"x","c":3,"d":true}` {
		t.Errorf("Set and Remove: %s", got)
	}
	clone := v.Clone()
	clone.Get("b").Text = "y"
	if v.Get("b").Text != "x" {
		t.Error("a clone shares a value")
	}
}

func TestValueUnmarshal(t *testing.T) {
	if got, _ := value(t, `{"a":1,"b":2,"a":3}`).MarshalJSON(); string(got) != `{"a":3,"b":2}` {
		t.Errorf("a key twice: %s", got)
	}
	v := &component.Value{}
	for _, text := range []string{``, `{}{}`, `{"a"}`, `[1,]`, strings.Repeat("[", 100_000)} {
		if err := v.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("UnmarshalJSON(%.20q) has no error", text)
		}
	}
}

// TestHostileSizes checks that a component can't use up memory by what its
// files hold.
func TestHostileSizes(t *testing.T) {
	many := "[" + strings.Repeat("[],", component.MaxManifest/3-1) + "[]]"
	keys := &strings.Builder{}
	for i := range component.MaxState / 12 {
		fmt.Fprintf(keys, `"%d":0,`, i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := component.ParseTableManifest("m", []byte(`{"tags":`+many[:len(many)-20]+`]}`), component.JSON); err == nil {
		t.Error("a manifest of millions of lists is taken")
	}
	if _, err := component.ParseUsage("u", []byte(many[:component.MaxUsage-1]+"]")); err == nil {
		t.Error("usage of lists is taken")
	}
	if v, err := component.ParseComponentState("s", []byte("{"+keys.String()+`"x":0}`), component.JSON); err != nil || len(v.Members) != component.MaxState/12+1 {
		t.Errorf("a state of many keys: %v", err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<30 {
		t.Errorf("%d MiB were used", used>>20)
	}
}
