package sql

// SetStep has f told before each part of a load.
func (s *Storage) SetStep(f func(name string)) { s.step = f }

// Migrations returns how many there are.
func (s *Storage) Migrations() int { return len(s.d.migrations()) }

// Migrate gives the storage one more migration.
func (s *Storage) Migrate(statements ...string) { s.d = migrated{s.d, statements} }

// A migrated dialect is that of a later version.
type migrated struct {
	dialect
	more []string
}

func (m migrated) migrations() [][]string { return append(m.dialect.migrations(), m.more) }
