package isolate

// startGvisor has a runtime with a kernel of its own make a sandbox.
func startGvisor(spec *Spec) (backend, error) {
	return nil, unsupported("runtime", "gVisor")
}
