// Package fields describes, checks and documents structured input: documents
// and configuration files.
//
// A tree of [Type] values says which keys there are, what their values may be
// and what they mean. [Read] checks a [Value], whatever syntax it was written
// in, and finds all problems at once; [Schema] makes a JSON Schema of the same
// tree; [Markdown] makes the reference tables of the documentation of it. So
// the three can't disagree.
package fields
