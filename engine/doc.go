// Package engine is the contract for isolation: what an implementation must
// do, and what the executor may rely on. Package enginetest checks it.
//
// There are three nouns by lifetime. An [Engine] lives as long as the program.
// A [Sandbox] lives from Create to Destroy. A [Process] lives from Start until
// its Exit is known. More ability is an optional interface, each tied to one
// field of [Features]: what is declared works, and what is not declared is
// refused with caisson.ErrUnsupported and has no effect.
//
// Rules that hold for every method:
//
//   - A context bounds the call, never the thing that the call made. When a
//     context ends, the call returns soon, with the context's error, and what
//     it was about is as it was, or cleaned up where the method says so.
//   - Every method may be called at any time from any goroutine.
//   - Nothing passed in is kept or changed after the call returns, and what is
//     returned belongs to the caller, unless the method says otherwise.
//   - How a program ended is data: an Exit. An error says that the engine could
//     not do its part. Its kind is decided by the engine, see [caisson.Kind];
//     an error without a kind fails that task and has the engine probed again.
//   - Zero means "not asked for" or "no limit". Sizes are bytes, processor time
//     is thousandths of a core.
//   - Everything that comes from a task or out of a sandbox is hostile input.
//     It can't crash the engine or make it wait for ever.
//
// A sandbox is described by what lies in its folder, Spec.Dir: the engine
// writes there, durably, what it is about to make before it makes it. So that
// another process can find, use and remove the sandbox after a crash: see
// Recover and Sweep.
package engine
