package kept

import (
	"slices"
	"sync"

	"github.com/caissonrun/caisson/engine"
)

// Idmaps remembers which kinds of file systems can show files with other ids,
// because finding it out takes a process.
type Idmaps struct {
	mu    sync.Mutex
	kinds map[int64]bool
}

// Without returns the folders of a spec whose file system can't do it: their
// files must belong to the sandbox's ids.
func (m *Idmaps) Without(spec *engine.Spec) []string {
	var plain []string
	add := func(source string) {
		if source != "" && !slices.Contains(plain, source) && !m.can(source) {
			plain = append(plain, source)
		}
	}
	add(spec.Work)
	add(spec.Tmp)
	for _, mount := range spec.Mounts {
		if mount.Type == engine.MountBind && mount.Owned {
			add(mount.Source)
		}
	}
	return plain
}

// can reports whether the file system of a path can show other ids. A path
// that is not there is refused later, with its name.
func (m *Idmaps) can(path string) bool {
	kind, err := fsType(path)
	if err != nil {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if can, known := m.kinds[kind]; known {
		return can
	}
	if m.kinds == nil {
		m.kinds = map[int64]bool{}
	}
	m.kinds[kind] = canIdmap(path)
	return m.kinds[kind]
}
