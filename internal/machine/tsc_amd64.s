#include "textflag.h"

// func counter64() uint64
TEXT ·counter64(SB), NOSPLIT, $0-8
	RDTSC
	SHLQ $32, DX
	ORQ  DX, AX
	MOVQ AX, ret+0(FP)
	RET
