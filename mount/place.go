package mount

import "fmt"

// NewPlace returns the place of a request with what every mounter puts there.
func NewPlace(req *Request) *Place {
	return &Place{ID: req.ID(), Type: req.Mount.Type, Index: req.Index, Target: req.Mount.Target, ReadOnly: req.Mount.ReadOnly}
}

// ID names a mount of an attempt, by its number in the task.
func ID(task string, attempt, index int) string { return fmt.Sprintf("%s/%d/%d", task, attempt, index) }
