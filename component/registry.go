package component

import "context"

// A Registry is folders of definitions: files whose names end in .json, .yaml
// or .yml, each with one definition.
type Registry struct{ folders []string }

// NewRegistry returns the registry of folders. Of the same id in several the
// first counts; twice in one is an error.
func NewRegistry(folders ...string) *Registry { return &Registry{folders} }

// Definition returns the definition of a component. Errors: ErrNotFound;
// Problems of its file, which are the application's.
func (r *Registry) Definition(ctx context.Context, id string) (*Definition, error) {
	return nil, errTodo
}

// List returns all definitions in the order of their ids, and what is wrong
// with those that can't be read.
func (r *Registry) List(ctx context.Context) ([]*Definition, error) { return nil, errTodo }

// ReadDefinition reads a file with a definition.
func ReadDefinition(file string) (*Definition, error) { return nil, errTodo }

// ParseDefinition reads a definition. Errors: Problems, the application's.
func ParseDefinition(name string, data []byte) (*Definition, error) { return nil, errTodo }
