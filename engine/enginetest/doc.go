// Package enginetest is the conformance suite of package engine: every rule of
// the contract as a named case. What an engine declares must work; what it
// does not declare must be refused without effect.
package enginetest
