// Package version tells which build this is.
package version

import (
	"runtime"
	"runtime/debug"
)

// Set by the linker for builds by make; otherwise what go build knows counts.
var (
	version = ""
	commit  = ""
)

// Info describes a build.
type Info struct {
	Version string `json:"version"` // a tag, or "dev"
	Commit  string `json:"commit"`  // of the source, with "-dirty" where it was changed; may be "unknown"
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Get returns what is known about the running program.
func Get() Info {
	info := Info{Version: version, Commit: commit, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return withDefaults(info)
	}
	revision, dirty := "", false
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty {
		revision += "-dirty"
	}
	if info.Commit == "" {
		info.Commit = revision
	}
	if info.Version == "" && build.Main.Version != "(devel)" {
		info.Version = build.Main.Version
	}
	return withDefaults(info)
}

func withDefaults(info Info) Info {
	if info.Version == "" {
		info.Version = "dev"
	}
	if info.Commit == "" {
		info.Commit = "unknown"
	}
	return info
}
