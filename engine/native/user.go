package native

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
)

const (
	// maxID is the largest user or group id: larger ones are negative numbers
	// to some programs, and the last one means nobody at all to the kernel.
	maxID = 1<<31 - 2
	// userName is what the program's user is called inside.
	userName = "caisson"
	nobodyID = 65534
)

// parseUser reads Spec.User and Spec.Group: ids, or the names that the
// generated passwd has. Without them it returns the default.
func parseUser(user, group string, standard isolate.User) (isolate.User, error) {
	u := isolate.User{UID: standard.UID, GID: standard.GID}
	if user != "" {
		name, groupName, both := strings.Cut(user, ":")
		id, err := parseID("user", name, standard.UID)
		if err != nil {
			return u, err
		}
		u.UID, u.GID = id, id
		if name == userName {
			u.GID = standard.GID
		}
		if both {
			if u.GID, err = parseID("user", groupName, standard.GID); err != nil {
				return u, err
			}
		}
	}
	if group != "" {
		id, err := parseID("group", group, standard.GID)
		if err != nil {
			return u, err
		}
		if id != u.GID {
			u.Groups = []int{id}
		}
	}
	return u, nil
}

// parseID reads one id or name.
func parseID(field, text string, standard int) (int, error) {
	switch text {
	case "root":
		return 0, nil
	case userName:
		return standard, nil
	case "nobody", "nogroup":
		return nobodyID, nil
	}
	// ParseUint takes neither signs nor other bases' prefixes.
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, kept.Invalid(field, fmt.Errorf("%q is neither a number nor root, %s or nobody", text, userName))
	}
	if id > maxID {
		return 0, kept.Invalid(field, fmt.Errorf("%q is beyond %d", text, maxID))
	}
	return int(id), nil
}

// passwd and group are the generated files.
func passwd(u isolate.User) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "root:x:0:0:root:%s:/bin/sh\n", homeDir)
	if u.UID != 0 && u.UID != nobodyID {
		fmt.Fprintf(&b, "%s:x:%d:%d:%s:%s:/bin/sh\n", userName, u.UID, u.GID, userName, homeDir)
	}
	fmt.Fprintf(&b, "nobody:x:%d:%d:nobody:%s:/bin/sh\n", nobodyID, nobodyID, homeDir)
	return []byte(b.String())
}

func group(u isolate.User) []byte {
	var b strings.Builder
	b.WriteString("root:x:0:\n")
	if u.GID != 0 && u.GID != nobodyID {
		fmt.Fprintf(&b, "%s:x:%d:\n", userName, u.GID)
	}
	for _, g := range u.Groups {
		if g != 0 && g != nobodyID {
			fmt.Fprintf(&b, "group%d:x:%d:%s\n", g, g, nameOf(u))
		}
	}
	fmt.Fprintf(&b, "nogroup:x:%d:\n", nobodyID)
	return []byte(b.String())
}

// nameOf returns the user's name inside.
func nameOf(u isolate.User) string {
	switch u.UID {
	case 0:
		return "root"
	case nobodyID:
		return "nobody"
	}
	return userName
}
