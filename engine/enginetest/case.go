package enginetest

import (
	"os"
	"slices"
	"time"

	"github.com/caissonrun/caisson/engine"
)

// A Case checks one rule.
type Case struct {
	// Name is the case's, "group/what": it never changes.
	Name string
	// Rules are the numbers of the rules that it checks, see Rules.
	Rules []int
	// Attacks are the numbers of the attacks that it tries, see Attacks.
	Attacks []int
	// Rule is the sentence that is broken where it fails.
	Rule string
	// Needs names the features without which it is left to the refusals: the
	// path of a field of engine.Features, such as "limits.memory", or a word of
	// Features.Isolation after "isolation:".
	Needs []string

	deadline time.Duration // 0: defaultDeadline
	wants    []facility    // that the host or the harness must have
	body     func(t *T)
}

// defaultDeadline is more than any case takes on a slow, busy machine.
const defaultDeadline = 60 * time.Second

// A facility is something that not every harness or host has. It returns why
// not, or "".
type facility func(s *suite) string

func other(s *suite) string {
	if s.h.Other == nil {
		return "the harness has no other installation"
	}
	return ""
}

func lose(s *suite) string {
	if s.h.Lose == nil {
		return "the harness can't kill what keeps a sandbox"
	}
	return ""
}

func rooted(s *suite) string {
	if s.h.HostPaths {
		return "programs see the host's own files"
	}
	return ""
}

// endOfInput is for terminals with a ^D that ends the input.
func endOfInput(s *suite) string {
	for _, m := range s.features.Missing {
		if m.What == engine.WhatEndOfInput {
			return m.Why
		}
	}
	return ""
}

// sharedKernel is for what only the host's own kernel does.
func sharedKernel(s *suite) string {
	if slices.Contains(s.features.Isolation, engine.SeparateKernel) {
		return "the sandbox's kernel is one process to the host's"
	}
	return ""
}

// system is for what a program does by calls of a system: catch signals, start
// others, tell its processor time. A module has none.
func system(s *suite) string {
	if slices.Contains(s.features.Isolation, engine.SeparateLanguage) {
		return "a module can't catch signals, start others or tell its processor time"
	}
	return ""
}

func named(s *suite) string {
	if len(s.h.Networks) < 2 {
		return "the harness has no networks of a name"
	}
	return ""
}

func root(*suite) string {
	if os.Geteuid() != 0 {
		return "only root can set it up"
	}
	return ""
}

func fewSandboxes(s *suite) string {
	const few = 64
	if n := s.features.MaxSandboxes; n == 0 || n > few {
		return "the engine names no small number of sandboxes"
	}
	return ""
}

// isolation is what a case needs that checks a word of Features.Isolation.
func isolation(word string) string { return isolationPrefix + word }

// Cases returns all cases, in the order in which they run.
func Cases() []Case {
	return slices.Concat(
		constructionCases(),
		lifecycleCases(),
		environmentCases(),
		secretCases(),
		logCases(),
		exitCases(),
		stopCases(),
		execCases(),
		terminalCases(),
		mountCases(),
		volumeCases(),
		networkCases(),
		gatewayCases(),
		displayCases(),
		fileCases(),
		archiveCases(),
		limitCases(),
		pauseCases(),
		warmCases(),
		keepCases(),
		recoverCases(),
		isolationCases(),
		rootCases(),
		concurrencyCases(),
		refusalCases(),
	)
}
