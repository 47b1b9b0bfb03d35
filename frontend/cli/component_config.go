package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/seal"
	"github.com/caissonrun/caisson/executor"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/config"
)

func (c *command) componentValidateCommand() *cobra.Command {
	r := &componentRun{run: run{command: c}}
	cmd := &cobra.Command{
		Use:   "validate [flags] DIR|FILE",
		Short: "check a component's configuration",
		Long: "Check a configuration, all its rows (disabled ones, too), the definitions that it\n" +
			"names, and that its sealed values can be opened here. Nothing is run. Everything\n" +
			"that is wrong with the configuration is told at once. The exit status is that of\n" +
			"a run: 1 for an error of the configuration, 2 for one of a definition.",
		Args: exactly(1, "one DIR or FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.faulty(r.check(cmd.Context(), args[0]))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.ask.Definition, "definition", "", "the component's definition: a `file`, or an id in the registry")
	flags.StringVar(&r.ask.Registry, "registry", "", "a `folder` of definitions; default: registry beside the configuration")
	flags.StringVar(&r.ask.Storage, "storage", "", "`URL` or folder of tables and files; default: storage beside the configuration")
	flags.StringArrayVar(&r.variables, "variable", nil, "set a variable, `NAME=VALUE`; may be repeated")
	flags.StringVar(&r.ask.VariableValues, "variable-values", "", "use the set of values with this `id`")
	return cmd
}

// check tells what is wrong with a configuration.
func (r *componentRun) check(ctx context.Context, name string) error {
	if err := r.parse(name); err != nil {
		return err
	}
	conf, err := component.ReadConfiguration(r.ask.Config)
	if err != nil {
		return err
	}
	if err := conf.Check(); err != nil {
		return err
	}
	for _, row := range conf.Rows {
		r.ask.Rows = append(r.ask.Rows, row.ID)
	}
	host, err := r.openQuietly(ctx)
	if err != nil {
		return err
	}
	base, err := os.Getwd()
	if err != nil {
		return err
	}
	task := &caisson.Task{Component: &r.ask, Name: filepath.Base(r.ask.Config)}
	return r.validate(ctx, host, task, &executor.Submission{BaseDir: base, Trusted: true})
}

// componentEncrypt is the command that seals values.
type componentEncrypt struct {
	*command
	scope         string
	component     string
	configuration string
	text          bool
}

func (c *command) componentEncryptCommand() *cobra.Command {
	e := &componentEncrypt{command: c}
	cmd := &cobra.Command{
		Use:   "encrypt [flags] DIR|FILE|-",
		Short: "encrypt the # values of a configuration",
		Long: "Encrypt every value under a key that begins with # in a configuration and its\n" +
			"rows, where it stands: the rest of the files stays as it is. Any other JSON or YAML\n" +
			"file will do as well: a definition, credentials, a vault. Values that are encrypted\n" +
			"already stay. With - a document is read from standard input and printed; with\n" +
			"--text it is one value.\n\n" +
			"A value opens only in the scope that it was encrypted for: everywhere in the\n" +
			"project, in one component, or in one configuration of it. The key is in the file\n" +
			"component.key of the state folder, unless [component] key_file names another, and\n" +
			"is made when it is first needed. Without it the values are lost.",
		Example: "  caisson component encrypt ./extract\n" +
			"  caisson component encrypt --scope configuration --configuration 42 config.json\n" +
			"  caisson component encrypt --component example.ex --text - < password.txt",
		Args: exactly(1, "one DIR, FILE or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := e.main(args[0])
			if _, all := err.(component.Problems); all {
				return (&componentRun{run: run{command: c}}).faulty(err)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&e.scope, "scope", string(seal.Component), "`where` values can be used: project, component or configuration")
	flags.StringVar(&e.component, "component", "", "the component's `id`; default: the one that the file names")
	flags.StringVar(&e.configuration, "configuration", "", "the configuration's `id`; default: its own, or its folder's name")
	flags.BoolVar(&e.text, "text", false, "standard input is one value, not a document")
	return cmd
}

func (e *componentEncrypt) main(name string) error {
	if e.text && name != "-" {
		return usagef("component encrypt: --text goes with -: the value is read from standard input")
	}
	cfg, err := config.Load(e.configOptions())
	if err != nil {
		return err
	}
	keys := seal.Open(cfg.Component.Keys(cfg.State))
	if name == "-" {
		return e.standard(cfg, keys)
	}
	files, err := e.files(name)
	if err != nil {
		return err
	}
	box, err := e.box(cfg, keys)
	if err != nil {
		return err
	}
	total := 0
	for _, file := range files {
		n, err := encryptFile(file, box)
		if err != nil {
			return err
		}
		if total += n; n > 0 {
			fmt.Fprintf(e.caller.Stdout, "%s: encrypted %s\n", file, countOf(n, "value"))
		}
	}
	if total == 0 {
		fmt.Fprintln(e.caller.Stdout, "nothing to encrypt")
	}
	return nil
}

// countOf is a number of things.
func countOf(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func (e *componentEncrypt) box(cfg *config.Config, keys *seal.Keys) (*seal.Box, error) {
	box, err := keys.Box(seal.Scope{
		Project: cfg.Component.Project, Component: e.component, Configuration: e.configuration,
	}, seal.Level(e.scope))
	if err != nil {
		return nil, usagef("component encrypt: %w; see --scope, --component and --configuration", errors.Unwrap(err))
	}
	return box, nil
}

// standard seals what comes from standard input.
func (e *componentEncrypt) standard(cfg *config.Config, keys *seal.Keys) error {
	data, err := io.ReadAll(io.LimitReader(e.caller.Stdin, component.MaxConfiguration+1))
	if err != nil {
		return err
	}
	if len(data) > component.MaxConfiguration {
		return usagef("component encrypt: standard input is longer than %d MiB", component.MaxConfiguration>>20)
	}
	if !e.text {
		if v, err := component.ParseValue("-", data); err == nil {
			e.learn(v)
		}
	}
	box, err := e.box(cfg, keys)
	if err != nil {
		return err
	}
	if e.text {
		// The line break is the terminal's, not the value's.
		value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
		text, err := box.Seal(value)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(e.caller.Stdout, text)
		return err
	}
	out, _, err := component.SealText(box, "-", data)
	if err != nil {
		return err
	}
	_, err = e.caller.Stdout.Write(out)
	return err
}

// learn takes from a document which component and configuration it is about,
// as far as no flag says so.
func (e *componentEncrypt) learn(v *component.Value) {
	text := func(key string) string {
		if s := v.Get(key); s.IsScalar() {
			return s.Text
		}
		return ""
	}
	switch {
	case v.Get("configuration") != nil:
		if e.component == "" {
			e.component = text("component")
		}
		if e.configuration == "" {
			e.configuration = text("id")
		}
	case v.Get("data", "definition") != nil && e.component == "":
		e.component = text("id")
	}
}

// files returns the files of a configuration, or the one that is named.
func (e *componentEncrypt) files(name string) ([]string, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, usagef("component encrypt: %w", err)
	}
	if !info.IsDir() {
		data, err := readDocumentFile(name)
		if err != nil {
			return nil, err
		}
		v, err := component.ParseValue(name, data)
		if err != nil {
			return nil, err
		}
		e.learn(v)
		return []string{name}, nil
	}
	conf, err := component.ReadConfiguration(name)
	if err != nil {
		return nil, err
	}
	if e.component == "" {
		e.component = conf.Component
	}
	if e.configuration == "" {
		e.configuration = conf.ID
	}
	files := []string{conf.File}
	for _, row := range conf.Rows {
		if row.File != conf.File {
			files = append(files, row.File)
		}
	}
	return files, nil
}

func readDocumentFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > component.MaxConfiguration {
		return nil, usagef("component encrypt: %s is not a file of at most %d MiB", name, component.MaxConfiguration>>20)
	}
	return os.ReadFile(name)
}

// encryptFile seals the values of a file, which keeps its mode and owner.
func encryptFile(name string, box *seal.Box) (int, error) {
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return 0, err
	}
	data, err := readDocumentFile(name)
	if err != nil {
		return 0, err
	}
	out, n, err := component.SealText(box, name, data)
	if err != nil || bytes.Equal(out, data) {
		return 0, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	dir, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	f, err := atomicfile.CreateIn(dir, filepath.Base(name), info.Mode().Perm())
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return 0, err
		}
	}
	if _, err := f.Write(out); err != nil {
		return 0, err
	}
	return n, f.Commit()
}

// schemaNames are the schemas that are printed, with what each is of.
func schemaNames() (names []string, help string) {
	names = []string{"task", "config"}
	for _, s := range component.Schemas() {
		names = append(names, s[0])
		help += fmt.Sprintf("  %-15s %s\n", s[0], s[1])
	}
	return names, help
}
