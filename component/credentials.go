package component

import (
	"fmt"

	"github.com/caissonrun/caisson"
)

// ReadCredentials reads OAuth credentials from a store: a file, in JSON or
// YAML, of ids with mappings, whose "#" values are sealed.
//
// Errors: ErrNotFound for an id that is not there; Problems.
func ReadCredentials(file, id string, u Unsealer) (*Value, error) {
	missing := &caisson.Error{
		Op: caisson.OpValidate, Item: "authorization.oauth_api.id", Kind: caisson.ErrNotFound,
		Err: fmt.Errorf("there are no credentials %q", clip(id)),
	}
	if file == "" {
		missing.Err = fmt.Errorf("there are no credentials %q, and no store of them; set [component] credentials", clip(id))
		return nil, missing
	}
	store, err := readText(file)
	if err != nil {
		return nil, err
	}
	found := store.Get(id)
	if found == nil || found.Kind != Object {
		return nil, missing
	}
	plain, _, err := unseal(u, found, id, nil)
	return plain, inFile(err, file)
}

// ReadVault reads what {{ vault.NAME }} stands for: a file, in JSON or YAML, of
// names with single values; a value whose name begins with "#" is sealed, and
// its name is what follows the "#". Secrets are the values that were sealed.
//
// Errors: Problems.
func ReadVault(file string, u Unsealer) (values map[string]string, secrets []string, err error) {
	vault, err := readText(file)
	if err != nil {
		return nil, nil, err
	}
	if vault, err = check(file, vault, mapping(scalar())); err != nil {
		return nil, nil, err
	}
	plain, secrets, err := unseal(u, vault, "", nil)
	if err != nil {
		return nil, nil, inFile(err, file)
	}
	values = make(map[string]string, len(plain.Members))
	for _, m := range plain.Members {
		name := m.Key
		if name[:min(1, len(name))] == "#" {
			name = name[1:]
		}
		values[name] = scalarText(m.Value)
	}
	return values, secrets, nil
}
