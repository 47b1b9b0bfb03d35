package isolate

// A Spec says what Start makes.
type Spec struct {
	ID string `json:"id"`
}
