// Package component is the vocabulary of data components: what a component is
// (Definition, Registry), how it is configured (Configuration, Config), and the
// files by which it and its runner talk (State, TableManifest, FileManifest,
// Usage, ResultDoc).
//
// Everything is read strictly: unknown keys and values of another type are
// errors, and all of them are reported at once, each with its path and its
// reason. Errors are of kind caisson.ErrInvalid, which a component run reports
// as the user's error; those that Application made are the application's.
//
// The packages below it do the work: seal encrypts values, folder makes data
// folders, mapping moves tables and files, storage keeps them, run puts it all
// together.
package component
