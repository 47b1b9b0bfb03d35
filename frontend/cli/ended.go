package cli

import (
	"fmt"

	"github.com/caissonrun/caisson"
)

// ended says on stderr why a task did not end by itself, and returns the exit
// status that it stands for.
func (c *command) ended(result *caisson.Result) error {
	c.sayBlocked(result.Blocked)
	if text := explain(result); text != "" {
		fmt.Fprintf(c.caller.Stderr, "caisson: task %s: %s\n", result.Task, oneLine(text))
	}
	return exitStatus(result.Status)
}

// blockedShown is how many lines about what was blocked are worth reading.
const blockedShown = 10

// sayBlocked says on stderr what the task wanted to reach and might not, a line
// each.
func (c *command) sayBlocked(list []caisson.Blocked) {
	for i, b := range list {
		if i == blockedShown {
			fmt.Fprintf(c.caller.Stderr, "caisson: network: blocked %d more; caisson inspect lists them\n", len(list)-i)
			return
		}
		fmt.Fprintf(c.caller.Stderr, "caisson: network: blocked %s\n", oneLine(blockedText(b)))
	}
}

// blockedText is what was blocked, why, and how often.
func blockedText(b caisson.Blocked) string {
	if b.Count > 1 {
		return fmt.Sprintf("%s (%d times)", b, b.Count)
	}
	return b.String()
}

// explain returns why a task ended other than by its own exit, or "".
func explain(result *caisson.Result) string {
	if result.Error != nil {
		return result.Error.Message
	}
	text := explainExit(result.Exit)
	if text == "" || result.Success {
		return ""
	}
	if result.Step != "" {
		return result.Step + ": " + text
	}
	return text
}

// reasonTexts say in words for people why a program ended.
var reasonTexts = map[caisson.Reason]string{
	caisson.ReasonOOM:       "out of memory: killed at its memory limit",
	caisson.ReasonTimeout:   "timeout: its time was up",
	caisson.ReasonStopped:   "stopped",
	caisson.ReasonKilled:    "killed",
	caisson.ReasonAborted:   "aborted",
	caisson.ReasonCancelled: "cancelled",
	caisson.ReasonPolicy:    "ended because it broke a rule",
	caisson.ReasonLost:      "lost: its end was not seen, the keeper was killed or the host went down",
}

// explainExit returns why a program ended other than by its own exit, or "".
func explainExit(exit caisson.Exit) string {
	text := reasonTexts[exit.Reason]
	if exit.Reason == caisson.ReasonSignaled {
		text = "ended by signal " + caisson.SignalName(exit.Signal)
	}
	switch {
	case exit.Message == "":
		return text
	case text == "":
		return exit.Message
	}
	return string(exit.Reason) + ": " + exit.Message
}
