// Package server is the keeper: the program behind package keeper's Client.
//
// A keeper has one goroutine for each of the program's output streams, one
// that waits for the program, and one for each connection. What they share is
// in keeper, under its mutex; what blocks is done outside of it.
//
// Memory is what this package is written for, since every sandbox pays it. So
// there is no package net, buffers are made when they are needed, and what the
// start took is given back.
package server
