//go:build unix

package git

// SetSlack changes how many bytes a fetch may need beyond what max_size
// implies.
func (s *Stager) SetSlack(bytes int64) { s.slack = bytes }
