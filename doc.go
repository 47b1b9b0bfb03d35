// Package caisson is the vocabulary of Caisson: what a task is, how it ends,
// what it may use, and which kinds of errors there are.
//
// It holds plain data with JSON tags. It does no I/O and imports only the
// standard library, so that every other package, and every program that
// embeds Caisson, can share it. Unless a comment says otherwise, the zero
// value of a field means "not asked for", "the default" or "no limit".
//
// A task runs as one or more attempts. An attempt runs steps (pre, main, post,
// finally), each in a sandbox of its own that an engine makes. How a step's
// program ended is an [Exit]; how the task ended is a [Result]. Errors are
// only for what Caisson itself could not do, see [Kind].
package caisson
