// Package enginetest is the conformance suite of package engine: every rule of
// the contract as a named case. What an engine declares must work; what it
// does not declare must be refused without effect.
//
// An engine's whole semantic test is one call of [Run] with a [Harness]. Cases
// observe sandboxes from the inside by a small static program (package
// inside), so they need no shell and no files in the sandbox. Around every case
// the suite compares processes, mounts, cgroups, descriptors, goroutines and
// folders before and after: a case that leaves something behind fails.
//
// The rules are numbered; the numbers never change. [Rules] lists all of them
// with the cases that check each, or where else it is checked.
//
// Where CAISSON_CONFORMANCE_DIR names a folder, Run writes its results there,
// one JSON file an engine; the program in table makes docs/conformance.md of
// them. With the flag -enginetest.heavy, cases that look for rare races repeat
// as often as their rules say.
package enginetest
