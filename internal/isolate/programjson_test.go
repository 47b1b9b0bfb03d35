package isolate_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson/internal/isolate"
)

func TestProgramJSON(t *testing.T) {
	for _, p := range []isolate.Program{
		{Args: []string{"echo", "<&>é"}, Env: []string{"A=b"}, Dir: "/work", Terminal: true, Cols: 9},
		{Args: []string{"echo", "\xff\x00\xfe", ""}, Env: []string{"A=\x80"}, Dir: "/\xc3", Rows: 5},
		{Args: []string{"\xff"}, Env: []string{}},
	} {
		data, err := json.Marshal(&p)
		if err != nil {
			t.Fatal(err)
		}
		var got isolate.Program
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", data, diff)
		}
	}
}
