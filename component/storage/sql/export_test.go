package sql

// SetStep has f told before each part of a load.
func (s *Storage) SetStep(f func(name string)) { s.step = f }

// Migrations returns how many there are.
func (s *Storage) Migrations() int { return len(s.d.migrations()) }
