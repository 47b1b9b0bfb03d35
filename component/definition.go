package component

import (
	"slices"
	"time"

	"github.com/caissonrun/caisson"
)

// The features of components that a runner heeds.
const (
	FeatureRootUser     = "container-root-user"
	FeatureNoSwap       = "no-swap"
	FeatureKeepalive    = "container-tcpkeepalive-60s-override"
	FeatureBranchJobs   = "dev-branch-job-blocked"
	FeatureBranchUnsafe = "dev-branch-configuration-unsafe" // needs runtime.safe in a branch
	FeatureArtifacts    = "artifacts"
	FeatureFilesAllowed = "allow-use-file-storage-only"
)

// A Definition says what a component is: an entry of the registry. Defaults are
// filled in.
type Definition struct {
	ID       string
	Type     string // extractor, writer, application, processor, transformation, other ...
	Name     string
	Features []string

	DataTypes         string // "none", "hints" or "authoritative"
	ProcessorPosition string // "any", "before" or "after"; information only

	// Exactly one of Image, Builder and Command is set.

	Image   *ImageSource
	Builder *Builder
	Command []string // a program of the host with its arguments, for engines that run commands

	Env     map[string]string // of a Command; an image has its own
	Dir     string            // the folder of the definition's file: what a Command's relative program and files start at
	Workdir string            // of a Command; empty: /data

	Memory          caisson.Bytes
	Format          string        // "json" or "yaml"
	Timeout         time.Duration // of the main program
	Network         string        // "none", "bridge" or "no-internet"
	CPUShares       int           // of old definitions; not enforced
	ImageParameters *Value        // an object; never nil
	SyncActions     []string
	Logging         Logging
	StagingInput    string // "local", "none", "s3", "abs" or "workspace-..."
	StagingOutput   string // "local", "none" or "workspace-..."

	DefaultBucket       bool
	DefaultBucketStage  string // "in" or "out"
	ForwardToken        bool
	ForwardTokenDetails bool
	InjectEnvironment   bool // root parameters become KBC_PARAMETER_ variables
}

// Has reports whether the component has a feature.
func (d *Definition) Has(feature string) bool { return slices.Contains(d.Features, feature) }

// An ImageSource is where a component's image comes from.
type ImageSource struct {
	URI    string // without a tag
	Tag    string
	Digest string // empty: whatever the tag is
	// Username and Password are of the registry; empty: none. The password is
	// sealed as it stands in the definition.
	Username, Password, Server string
}

// Reference returns the image's name with its tag, or with another tag.
func (s *ImageSource) Reference(tag string) string {
	if tag == "" {
		tag = s.Tag
		if s.Digest != "" {
			return s.URI + ":" + tag + "@" + s.Digest
		}
	}
	return s.URI + ":" + tag
}

// Logging says how a component logs and what becomes of it.
type Logging struct {
	Type                string // "standard" or "gelf"
	GELFServer          string // "tcp", "udp" or "http"
	NoApplicationErrors bool   // every failure is the user's error
	// Verbosity is by level (100 debug, 200 info, 250 notice, 300 warning, 400
	// error, 500 critical, 550 alert, 600 emergency): "none", "camouflage",
	// "normal" or "verbose".
	Verbosity map[int]string
}

// Builder makes an image from a git repository.
type Builder struct {
	Parent     *ImageSource
	Repository Repository
	EntryPoint string
	Commands   []string
	Parameters []BuildParameter
	Version    string
	NoCache    bool
}

// A Repository is where a builder's sources are.
type Repository struct {
	URI                string
	Username, Password string // empty: none; the password is sealed as it stands in the definition
}

// A BuildParameter is what {{name}} stands for in a builder's commands.
type BuildParameter struct {
	Name     string
	Type     string // "int", "string", "argument", "plain_string" or "enumeration"
	Optional bool
	Default  string
	Values   []string // of an enumeration
}
