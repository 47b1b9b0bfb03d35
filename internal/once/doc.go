// Package once makes files that can be read once: FIFOs with their value in them,
// on Linux. Who made them is told when one is opened: it removes the name and then
// its own end, so that the reader gets the value and its end, and nobody else gets
// anything.
package once
