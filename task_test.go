package caisson_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/caissonrun/caisson"
)

func TestNetworkInJSON(t *testing.T) {
	for _, test := range []struct {
		text    string
		network caisson.Network
	}{
		{`"none"`, caisson.Network{Mode: "none"}},
		{`"host"`, caisson.Network{Mode: "host"}},
		{`"lan"`, caisson.Network{Mode: "lan"}},
		{`{"allow":["a:1","b:2"]}`, caisson.Network{Mode: "allow", Allow: []string{"a:1", "b:2"}}},
		{`{"allow":[]}`, caisson.Network{Mode: "allow", Allow: []string{}}},
		{
			`[{"name":"lan","aliases":["x"]}]`,
			caisson.Network{Attach: []caisson.NetworkAttach{{Name: "lan", Aliases: []string{"x"}}}},
		},
	} {
		data, err := json.Marshal(test.network)
		if err != nil || string(data) != test.text {
			t.Errorf("Marshal(%+v) = %s, %v, want %s", test.network, data, err, test.text)
		}
		var got caisson.Network
		if err := json.Unmarshal([]byte(test.text), &got); err != nil || !reflect.DeepEqual(got, test.network) {
			t.Errorf("Unmarshal(%s) = %+v, %v, want %+v", test.text, got, err, test.network)
		}
	}
	t.Run("Zero", func(t *testing.T) {
		data, err := json.Marshal(caisson.Network{})
		if err != nil || string(data) != `"none"` {
			t.Errorf("Marshal = %s, %v, want none", data, err)
		}
		n := caisson.Network{Mode: "host"}
		if err := json.Unmarshal([]byte("null"), &n); err != nil || !n.IsZero() {
			t.Errorf("Unmarshal(null) = %+v, %v, want nothing", n, err)
		}
		task, err := json.Marshal(&caisson.Task{})
		if err != nil || string(task) != "{}" {
			t.Errorf("Marshal of a task = %s, %v, want {}", task, err)
		}
	})
	for name, n := range map[string]caisson.Network{
		"ModeAndAllow":   {Mode: "host", Allow: []string{"a:1"}},
		"ModeAndAttach":  {Mode: "host", Attach: []caisson.NetworkAttach{{Name: "a"}}},
		"AllowAndAttach": {Allow: []string{"a:1"}, Attach: []caisson.NetworkAttach{{Name: "a"}}},
	} {
		t.Run("Err"+name, func(t *testing.T) {
			if data, err := json.Marshal(n); err == nil {
				t.Errorf("Marshal(%+v) = %s, want an error", n, data)
			}
		})
	}
	for _, text := range []string{`5`, `{"allow": 5}`, `[5]`} {
		var n caisson.Network
		if err := json.Unmarshal([]byte(text), &n); err == nil {
			t.Errorf("Unmarshal(%s) = %+v, want an error", text, n)
		}
	}
}
