//go:build !linux

// Package machinetest boots guests for tests, on Linux.
package machinetest
