// Package folder makes the data folder that a component works on, and reads
// what the component left in it.
//
// A [Folder] is W: W/data is mounted at /data and W/tmp at /tmp of one step
// after another. It is on this host and belongs to one row of one run.
//
//	config.json              made for each step, see [Folder.WriteConfig]
//	in/tables  in/files      put there by the input mapping, with manifests
//	in/user                  always empty
//	in/state.json            for the main component only
//	out/tables out/files     what a step makes; the next step's in/
//	out/state.json out/usage.json out/result.json
//	artifacts/in artifacts/out
//
// Whatever a step could have made is hostile, and it may still be changing: a
// file is opened once, must be the one that was listed, and links are never
// followed. Memory is bounded: contents are streamed, documents and numbers of
// names have limits.
package folder
