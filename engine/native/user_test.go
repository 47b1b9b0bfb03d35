package native

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
)

func TestParseUser(t *testing.T) {
	standard := isolate.User{UID: 1000, GID: 1001}
	tests := []struct {
		user, group string
		want        isolate.User
	}{
		{"", "", isolate.User{UID: 1000, GID: 1001}},
		{"5", "", isolate.User{UID: 5, GID: 5}},
		{"5:6", "", isolate.User{UID: 5, GID: 6}},
		{"root", "", isolate.User{}},
		{"0:0", "", isolate.User{}},
		{"caisson", "", isolate.User{UID: 1000, GID: 1001}},
		{"caisson:nogroup", "", isolate.User{UID: 1000, GID: 65534}},
		{"nobody", "", isolate.User{UID: 65534, GID: 65534}},
		{"5:6", "7", isolate.User{UID: 5, GID: 6, Groups: []int{7}}},
		{"5:6", "6", isolate.User{UID: 5, GID: 6}},
		{"", "root", isolate.User{UID: 1000, GID: 1001, Groups: []int{0}}},
		{"2147483646", "", isolate.User{UID: 2147483646, GID: 2147483646}},
	}
	for _, test := range tests {
		got, err := parseUser(test.user, test.group, standard)
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("parseUser(%q, %q): %v (-want +got)\n%s", test.user, test.group, err, diff)
		}
	}
	bad := []string{
		"-1", "+1", "0x0", "4294967295", "4294967296", "2147483647", "18446744073709551616", ":", "5:", ":5", "5:6:7",
		"daemon", "Root", " 0", "0 ", "1e3", "٣", "5:-1",
	}
	for _, user := range bad {
		if got, err := parseUser(user, "", standard); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("parseUser(%q) = %+v, %v, want ErrInvalid", user, got, err)
		}
		if got, err := parseUser("", user, standard); !errors.Is(err, caisson.ErrInvalid) {
			t.Errorf("group %q = %+v, %v, want ErrInvalid", user, got, err)
		}
	}
}

func TestPasswd(t *testing.T) {
	tests := []struct {
		user          isolate.User
		passwd, group string
	}{
		{
			isolate.User{UID: 1000, GID: 1001, Groups: []int{5, 0}},
			"root:x:0:0:root:/tmp:/bin/sh\ncaisson:x:1000:1001:caisson:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n",
			"root:x:0:\ncaisson:x:1001:\ngroup5:x:5:caisson\nnogroup:x:65534:\n",
		},
		{
			isolate.User{},
			"root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n",
			"root:x:0:\nnogroup:x:65534:\n",
		},
	}
	for _, test := range tests {
		if got := string(passwd(test.user)); got != test.passwd {
			t.Errorf("passwd(%+v) = %q, want %q", test.user, got, test.passwd)
		}
		if got := string(group(test.user)); got != test.group {
			t.Errorf("group(%+v) = %q, want %q", test.user, got, test.group)
		}
	}
}
