package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/executor"
)

func (c *command) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print what makes a shell complete commands, flags, ids and engines",
		Example: "  source <(caisson completion bash)\n" +
			"  caisson completion zsh >\"${fpath[1]}/_caisson\"\n" +
			"  caisson completion fish >~/.config/fish/completions/caisson.fish",
		Args:      exactly(1, "bash, zsh or fish"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, w := cmd.Root(), c.caller.Stdout
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(w, true)
			case "zsh":
				return root.GenZshCompletion(w)
			case "fish":
				return root.GenFishCompletion(w, true)
			}
			return usageError(cmd, fmt.Errorf("no completion for %q, want bash, zsh or fish", args[0]))
		},
	}
}

// completer is what cobra calls for words of a command line.
type completer = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective)

// running, enterable and anyState choose the tasks whose ids are offered.
func running(info *executor.Info) bool   { return info.State != caisson.StateEnded }
func enterable(info *executor.Info) bool { return running(info) || !info.KeptUntil.IsZero() }
func anyState(info *executor.Info) bool  { return true }

// completeOne offers ids for the first argument.
func (c *command) completeOne(fits func(*executor.Info) bool) completer {
	many := c.completeMany(fits)
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return many(cmd, args, word)
	}
}

// completeMany offers ids. A completion that fails offers nothing: there is no
// place to say why.
func (c *command) completeMany(fits func(*executor.Info) bool) completer {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		host, err := c.openQuietly(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := host.Executor.List(cmd.Context(), true)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var words []string
		for i := range list {
			if info := &list[i]; fits(info) {
				words = append(words, cobra.CompletionWithDesc(info.ID, oneLine(info.Name+" "+stateText(info))))
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

func (c *command) completeEngines(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	host, err := c.openQuietly(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return host.Engines, cobra.ShellCompDirectiveNoFileComp
}

// completeNetworks offers what every host knows; an allow-list goes on.
func completeNetworks(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{caisson.NetworkNone, caisson.NetworkDefault, caisson.NetworkHost, "allow="}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeProxies offers the upstreams of the configuration, behind the name
// inside that was begun, or else one like their own.
func (c *command) completeProxies(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
	host, err := c.openQuietly(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	name, _, named := strings.Cut(word, "=")
	var words []string
	for _, upstream := range host.Executor.Upstreams() {
		inside := upstream
		if named {
			inside = name
		}
		words = append(words, inside+"="+upstream)
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func (c *command) completeVolumes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	host, err := c.openQuietly(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := host.Volumes.List(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	words := make([]string, len(list))
	for i := range list {
		words[i] = list[i].Name
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeDocuments offers files that look like task documents.
func completeDocuments(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
}

func signalWords() []string {
	words := make([]string, 0, 31)
	for n := 1; n <= 31; n++ {
		words = append(words, caisson.SignalName(n))
	}
	return words
}
