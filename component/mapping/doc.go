// Package mapping moves tables and files between a storage and a component's
// data folder.
//
// [Input] fills in/ with what a configuration asks for. [Output] makes a [Plan]
// of what is in out/: which table each of them is loaded into and how, each
// value with where it comes from. Everything is checked before the first load.
// A plan is plain JSON. Whoever keeps it can load it again after a crash:
// every load has an id that the storage remembers, so nothing is loaded twice.
//
// What a component wrote is hostile; it is read through package folder only.
// Tables are streamed, and memory does not grow with them.
//
// Errors are of a kind that the user can mend, with two exceptions: what
// component.Application has marked, and what a storage says of itself.
package mapping
