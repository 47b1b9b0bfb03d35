package objects

import (
	"context"
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
)

// Document implements storage.Storage.
func (s *Storage) Document(ctx context.Context, name string) ([]byte, string, error) {
	key, err := documentKey(name)
	if err != nil {
		return nil, "", err
	}
	return s.store.Get(ctx, key)
}

// PutDocument implements storage.Storage.
func (s *Storage) PutDocument(ctx context.Context, name string, data []byte, version string) (string, error) {
	key, err := documentKey(name)
	if err != nil {
		return "", err
	}
	return s.store.Put(ctx, key, data, version)
}

// documentKey is where a document lies: NAME.json, in folders as the name has
// them. Characters that a file system may not have are "%" and their code. No
// folder ends with ".json", so that a document can have others below its name.
func documentKey(name string) (string, error) {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		if p == "" || len(p) > 80 {
			return "", &caisson.Error{Item: fmt.Sprintf("document %q", name), Kind: caisson.ErrInvalid, Err: fmt.Errorf(
				"each part of its name has 1 to 80 characters",
			)}
		}
		parts[i] = escape(p)
		if i < len(parts)-1 && strings.HasSuffix(parts[i], ".json") {
			parts[i] = strings.TrimSuffix(parts[i], ".json") + "%2Ejson"
		}
	}
	return "documents/" + strings.Join(parts, "/") + ".json", nil
}

func escape(part string) string {
	var b strings.Builder
	for i, c := range []byte(part) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' && i > 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
