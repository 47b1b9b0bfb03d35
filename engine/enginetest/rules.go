package enginetest

import "slices"

// A Rule is one behaviour that every engine must have where it applies, or one
// attack that must fail.
type Rule struct {
	// Number names the rule. Numbers never change.
	Number int
	// Group is the topic.
	Group string
	// Text says what is true of an engine that keeps the rule.
	Text string
	// Cases are the names of the cases that check it.
	Cases []string
	// Elsewhere says what else checks it, or, where there are no cases, why
	// not. Empty: the cases are all.
	Elsewhere string
}

// Rules returns all rules of behaviour, by number, with the cases that check
// each.
func Rules() []Rule {
	return withCases(ruleTexts(), func(c Case) []int { return c.Rules })
}

// Attacks returns all attacks, by number, with the cases that try each.
func Attacks() []Rule {
	return withCases(attackTexts(), func(c Case) []int { return c.Attacks })
}

// withCases fills in the cases that name each rule.
func withCases(rules []Rule, numbers func(Case) []int) []Rule {
	for _, c := range Cases() {
		for _, n := range numbers(c) {
			i := slices.IndexFunc(rules, func(r Rule) bool { return r.Number == n })
			rules[i].Cases = append(rules[i].Cases, c.Name)
		}
	}
	return rules
}

// Where rules are checked that are not the engine's alone.
const (
	byDocument = "package document and internal/config"
	byExecutor = "package executor, by its fault matrix and crash points"
	byStage    = "package stage, by stagetest"
	byMount    = "package mount, by mounttest"
	bySafefs   = "internal/safefs"
	byCLI      = "frontend/cli, by scripts of the built program"
	byRedact   = "keeper/redact"
	bySelftest = "caisson selftest"
	withVM     = "written with the first engine of virtual machines"
	byImage    = "package image"
	byGateway  = "internal/gateway"
	withFront  = "written with the first front door of several users"
)

// numbered puts a topic and consecutive numbers to texts.
func numbered(group string, first int, rules ...Rule) []Rule {
	for i := range rules {
		rules[i].Number, rules[i].Group = first+i, group
	}
	return rules
}

// rule is a text, with where else it is checked.
func rule(text string, elsewhere ...string) Rule {
	r := Rule{Text: text}
	if len(elsewhere) > 0 {
		r.Elsewhere = elsewhere[0]
	}
	return r
}

func ruleTexts() []Rule {
	return slices.Concat(
		numbered("Construction", 1,
			rule("the configuration's schema accepts the documented example and refuses unknown keys, types and values", byDocument),
			rule("the schema of options does so too, and nothing that passes it can crash the engine", byDocument),
			rule("features are constant and equal what is observed"),
			rule("what is not declared is refused as unsupported, without effect, in every state"),
			rule("mistakes of a task come back all at once, with the fields' names", byDocument),
			rule("as many sandboxes run as are declared, one more is exhausted, and every ending gives its place back"),
			rule("closing an engine leaves sandboxes alone, can be repeated, and what comes after says so"),
			rule("two engines in one process do not disturb each other"),
		),
		numbered("Creation", 9,
			rule("destroying before the start releases everything, repeatedly and from several callers"),
			rule("destroying while the start is under way ends in one consistent outcome, and nothing remains"),
			rule("a cancelled preparation returns soon and leaves nothing, not even a spoilt cache", byImage),
			rule("a second start is refused and does not disturb the first"),
			rule("a spec is one value: concurrent use of it has no races, and all of it takes effect"),
			rule("a failure while starting has the right kind and one clear line, releases everything, and the next task runs", byExecutor),
			rule("a command that is not found or not executable, an empty one, or one with NUL is the task's mistake"),
			rule("very many, very long, and too many arguments are handled as the system does"),
		),
		numbered("Environment", 17,
			rule("a variable's value reaches the program"),
			rule("a name that is given twice is a conflict", byDocument+": a spec's variables are a map"),
			rule("a bad name is the task's mistake"),
			rule("every value arrives byte for byte; NUL is refused"),
			rule("which names are allowed is documented and equal in all engines"),
			rule("nothing of Caisson's own environment is visible, and PATH, HOME, USER and TMPDIR are sane"),
			rule("execs see the program's environment"),
			rule("secrets are in no log and in no process list", byRedact),
		),
		numbered("Logs", 25,
			rule("output of a program that succeeds is in the log"),
			rule("output of a program that fails is in the log"),
			rule("nothing that was not printed is in the log"),
			rule("output can be read before the end"),
			rule("endless output costs bounded memory, a limit leaves a visible marker, and the program is not blocked", "keeper/server"),
			rule("all bytes are kept exactly, binary ones and endless lines too"),
			rule("the streams can be told apart, each keeps its order, and the last bytes are never lost"),
			rule("a slow reader does not hold the program, and a late one sees everything"),
			rule("output that is closed early, or kept open by others after the end, does not confuse the end"),
			rule("a full disk under the log never hangs anything", "keeper/tasklog"),
			rule("the task can't forge what Caisson says in the log", "keeper/tasklog"),
		),
		numbered("Exits", 36,
			rule("exit codes are exact"),
			rule("death by a signal is reported as that signal"),
			rule("running out of memory is reported with the limit, and neighbours survive"),
			rule("a fork bomb is held by the limit of processes"),
			rule("waiting can be repeated, by many, with one answer"),
			rule("cancelling one waiter concerns no other"),
			rule("usage is there and plausible, and wall time does not depend on the clock"),
			rule("a program that ends before anyone waits, or before the start returns, has its true end"),
		),
		numbered("Stopping", 44,
			rule("a kill ends the program without success"),
			rule("reason and signal are recorded, and files written before are there"),
			rule("destroying gives aborted to all waiters and releases everything"),
			rule("destroying after the end changes nothing about it"),
			rule("whatever is called at once ends without deadlock in one consistent outcome"),
			rule("a soft stop gives its whole grace, and then kills"),
			rule("no process of the program is left, however it hides"),
			rule("programs that ignore, are halted or traced are gone, or reported as left"),
			rule("no zombies, and no process is killed by a reused id"),
			rule("a context that ends, in any state, ends its call within bounded time", byExecutor),
			rule("the time limit counts what is documented, and of several causes the first wins"),
			rule("the worker's own SIGTERM and SIGINT are graceful first and quick then", byCLI),
		),
		numbered("Exec", 56,
			rule("an exec's output is exact"),
			rule("a failing exec says so"),
			rule("an exec can be ended"),
			rule("execs end with the program"),
			rule("an exec's exit code and signal arrive"),
			rule("an exec's arguments are honoured, and a program that is missing is the caller's mistake, with and without terminal"),
			rule("a terminal is one, and has the size that it was given, at any time"),
			rule("without a terminal there is no resizing"),
			rule("bytes pass through unchanged, and so does the end of input"),
			rule("who does not read, or is not read, holds up nobody else"),
			rule("many execs at once, and none after the end"),
			rule("an idle exec does not hold the task"),
			rule("control keys and hanging up reach the foreground, and no orphan remains", "keeper/server, for ^Z and job control"),
			rule("an exec has the task's user, folder, limits, group of processes and namespaces"),
			rule("an exec into a sandbox that has ended, or is paused, is told so; one that is kept is entered"),
		),
		numbered("Displays", 71,
			rule("displays are listed"),
			rule("every listed display opens"),
			rule("a display that does not exist says so"),
			rule("a display's stream ends with the sandbox"),
			rule("several, slow and malicious viewers disturb nobody", "internal/rfb, for viewers and servers that do not keep to the protocol"),
		),
		numbered("Mounts", 76,
			rule("what is written to a volume is read by the next sandbox"),
			rule("an empty volume is empty"),
			rule("a read-only volume is not written"),
			rule("a read-only volume can be read"),
			rule("read-only holds for root, for execs, after remounting and through links"),
			rule("a volume is filled before its use, and hostile names are refused", byMount),
			rule("volumes are shared read-only, mounted side by side, in each other and at odd places, or refused"),
			rule("volumes survive kills and serve another user afterwards", byMount),
			rule("removing a volume that is in use is refused or waits", byMount),
			rule("a full volume is the task's problem, not the host's"),
			rule("any tree can be removed, whatever a task made of it", bySafefs+" and "+byMount),
		),
		numbered("Network", 87,
			rule("a proxy answers", byGateway),
			rule("a proxy's refusal is the task's to see", byGateway),
			rule("two sandboxes reach each their own proxy by the same name"),
			rule("nobody else reaches a proxy"),
			rule("proxies pass HTTP through unchanged, streams and upgrades too, and survive their handlers", byGateway+", and "+byCLI+": curl, git and python"),
			rule("all allowed proxy names work, others are refused", byDocument),
			rule("a proxy's requests end with the task", byGateway),
			rule("the network is exactly what was asked for"),
			rule("addresses and ports are not reused while in use"),
			rule("names resolve, or fail, as the network says"),
		),
		numbered("Files", 97,
			rule("a file is read"),
			rule("a missing file says so"),
			rule("a missing folder says so"),
			rule("nested folders are complete"),
			rule("a consumer that stops early stops the reading"),
			rule("every entry comes once, in a documented order"),
			rule("empty, sparse, huge, deep and very many files are handled", bySafefs+" and "+byStage),
			rule("any name passes unchanged, and none leads out"),
			rule("any path that a caller passes stays inside"),
			rule("no link of any kind leads out"),
			rule("swapping files for links during the reading never leaks"),
			rule("what is no file never hangs anything"),
			rule("files that change while they are read are consistent or an error"),
			rule("slow, failing and stopping consumers are handled"),
			rule("reading concurrently, and against destroying, is safe"),
			rule("an archive equals a walk, streams, and is cut off recognisably"),
			rule("a hostile guest's lists and sizes do no harm", withVM),
			rule("one file that fails does not lose the others", byStage),
			rule("a full disk while collecting is retryable and leaves nothing", byStage),
		),
		numbered("Leaks and recovery", 116,
			rule("after every case the host is as before", "every case: all that could be left is compared before and after"),
			rule("closing and destroying can be repeated and concurrent"),
			rule("many tasks leave memory, descriptors and disk as they were"),
			rule("whoever is killed when, the next start removes or adopts everything, and nothing of others", byExecutor),
			rule("a task that runs is adopted: log without gap, true exit"),
			rule("what was before a reboot is lost, once"),
			rule("when the backend dies, that task is lost, and the next one runs"),
			rule("when the backend hangs, calls are bounded by their contexts", withVM+", and by executor over mem's hangs"),
			rule("a failed clean-up is reported and tried again", byExecutor),
			rule("a host that is out of disk, descriptors or memory fails tasks, and damages nothing", byExecutor+"; internal/atomicfile"),
		),
		numbered("Isolation and limits", 126,
			rule("a task reads nothing of others and of Caisson"),
			rule("a task gains no privilege"),
			rule("every limit is effective and reported"),
			rule("user ids of live sandboxes do not overlap"),
			rule("devices are there only when declared and permitted"),
			rule("nothing that a task prints, names or writes can crash the worker", "fuzz tests of keeper/tasklog, document and "+bySafefs),
			rule("images and caches are fetched once, checked while they are unpacked, and collected only when unused", byImage),
		),
	)
}
