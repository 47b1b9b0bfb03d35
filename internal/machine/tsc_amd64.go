package machine

// counter64 reads the processor's time stamp counter.
func counter64() uint64
