package component_test

import (
	"encoding/json"
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
