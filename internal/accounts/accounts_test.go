package accounts_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/accounts"
)

const most = 65535

var standard = accounts.ID{UID: 1000, GID: 1001}

func read(t *testing.T, passwd, group string) *accounts.Accounts {
	t.Helper()
	a, err := accounts.Read(fstest.MapFS{"etc/passwd": {Data: []byte(passwd)}, "etc/group": {Data: []byte(group)}}, most)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWho(t *testing.T) {
	a := read(
		t, "root:x:0:0::/root:/bin/sh\nann:x:5:6::/home/ann:\nbob:x:1000:7::relative:\nbad:x:99999999:1::/:\n0x5:x:8:8::/:\n",
		"wheel:x:0:ann\nstaff:x:9:bob,ann\nlarge:x:70000:ann\n",
	)
	for name, test := range map[string]struct {
		user, group string
		root        bool
		want        accounts.Person
		err         bool
	}{
		"None":      {want: accounts.Person{UID: 1000, GID: 1001, Name: "bob", Home: "relative"}},
		"Root":      {root: true, want: accounts.Person{Name: "root", Home: "/root"}},
		"RootName":  {user: "root:0", want: accounts.Person{UID: 1000, GID: 1001, Name: "bob", Home: "relative"}},
		"RootZeros": {user: "000", want: accounts.Person{UID: 1000, GID: 1001, Name: "bob", Home: "relative"}},
		"Name":      {user: "ann", want: accounts.Person{UID: 5, GID: 6, Groups: []int{0, 9}, Name: "ann", Home: "/home/ann"}},
		"ID":        {user: "5", group: "staff", want: accounts.Person{UID: 5, GID: 6, Groups: []int{0, 9}, Name: "ann", Home: "/home/ann"}},
		"Group":     {user: "ann:staff", group: "77", want: accounts.Person{UID: 5, GID: 9, Groups: []int{77}, Name: "ann", Home: "/home/ann"}},
		"Unknown":   {user: "4242", want: accounts.Person{UID: 4242}},
		"ErrName":   {user: "eve", err: true},
		"ErrGroup":  {user: "ann:eve", err: true},
		"ErrLarge":  {user: "65536", err: true},
		"ErrHuge":   {user: "4294967296", err: true},
		"ErrSign":   {user: "-1", err: true},
		"ErrHalf":   {user: "ann:", err: true},
		"ErrMore":   {user: "ann", group: "large", err: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := a.Who(test.user, test.group, standard, test.root)
			if test.err {
				if !errors.Is(err, caisson.ErrInvalid) {
					t.Errorf("Who = %+v, %v", p, err)
				}
				return
			}
			if err != nil || p.UID != test.want.UID || p.GID != test.want.GID || !slices.Equal(p.Groups, test.want.Groups) ||
				p.Name != test.want.Name || p.Home != test.want.Home {
				t.Errorf("Who = %+v, %v, want %+v", p, err, test.want)
			}
		})
	}
}

func TestRead(t *testing.T) {
	if _, err := accounts.Read(fstest.MapFS{}, most); err != nil {
		t.Errorf("without files: %v", err)
	}
	large := fstest.MapFS{"etc/passwd": {Data: []byte(strings.Repeat("x", 1<<20+1))}}
	if _, err := accounts.Read(large, most); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a large file: %v", err)
	}
	folder := fstest.MapFS{"etc/passwd/x": {Data: []byte("x")}}
	if _, err := accounts.Read(folder, most); !errors.Is(err, caisson.ErrInvalid) {
		t.Errorf("a folder: %v", err)
	}
}

// FuzzWho holds that no file makes a user that there can't be, or that was ruled out.
func FuzzWho(f *testing.F) {
	f.Add("root:x:0:0::/:\nx:x:1:2::/:", "g:x:3:x", "x", "g")
	f.Add("x:x:+1:2::/:", "", "x:3", "0")
	f.Fuzz(func(t *testing.T, passwd, group, user, more string) {
		if len(passwd)+len(group) > 1<<19 {
			return
		}
		p, err := read(t, passwd, group).Who(user, more, standard, false)
		if err != nil {
			return
		}
		bad := p.UID == 0 || len(p.Groups) > accounts.MaxGroups+1
		for _, id := range append([]int{p.UID, p.GID}, p.Groups...) {
			bad = bad || id < 0 || id > most
		}
		if bad {
			t.Errorf("Who = %+v", p)
		}
	})
}
