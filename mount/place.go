package mount

// NewPlace returns the place of a request with what every mounter puts there.
func NewPlace(req *Request) *Place {
	return &Place{Type: req.Mount.Type, Index: req.Index, Target: req.Mount.Target, ReadOnly: req.Mount.ReadOnly}
}
