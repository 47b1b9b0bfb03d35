package config

import (
	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// Docker is the section [engine.docker].
type Docker struct {
	Host             string           `json:"host"`               // the daemon's address; empty: DOCKER_HOST, or the usual socket
	NonRoot          bool             `json:"nonroot"`            // a program that would be root is 1000:1000
	AllowPrivileged  bool             `json:"allow_privileged"`   // tasks may ask for privileged
	AllowDevices     bool             `json:"allow_devices"`      // tasks may ask for devices
	AllowGPUs        bool             `json:"allow_gpus"`         // tasks may ask for gpus
	AllowHostNetwork bool             `json:"allow_host_network"` // tasks may ask for network host
	Network          string           `json:"network"`            // the daemon's network that network default means
	Networks         []string         `json:"networks"`           // the daemon's networks that tasks may name; empty: all
	ImageTTL         caisson.Duration `json:"image_ttl"`          // how long an unused image is kept; 0: for ever
	Verify           bool             `json:"verify"`             // try each image that was pulled
}

func defaultDocker() Docker { return Docker{NonRoot: true} }

func dockerSection() *fields.Type {
	text := func(want string) *fields.Type { return &fields.Type{Form: fields.Text, Want: want, NotEmpty: true} }
	return section("settings of the engine docker",
		fields.Field{
			Name: "host", Type: text("an address such as unix:///var/run/docker.sock"), Default: "`$DOCKER_HOST`, or `unix:///var/run/docker.sock`",
			Also: []string{"socket"}, Examples: []any{"unix:///run/podman/podman.sock"},
			Doc: "The address of the daemon, which must be on this host.",
		},
		fields.Field{
			Name: "nonroot", Type: toggle(), Default: "true", Also: []string{"sandbox"},
			Doc: "A user that is root in any spelling, or none, in the image or in the task, becomes 1000:1000. An image with another user keeps it. " +
				"Without it programs may be root of their container, with Docker's capabilities.",
		},
		fields.Field{Name: "allow_privileged", Type: toggle(), Default: "false", Also: []string{"privileged"}, Doc: "Lets tasks ask for `privileged: true`, which isolates nothing."},
		fields.Field{Name: "allow_devices", Type: toggle(), Default: "false", Also: []string{"devices"}, Doc: "Lets tasks ask for devices of the host."},
		fields.Field{Name: "allow_gpus", Type: toggle(), Default: "false", Also: []string{"gpus"}, Doc: "Lets tasks ask for `gpus`."},
		fields.Field{Name: "allow_host_network", Type: toggle(), Default: "false", Doc: "Lets tasks ask for the host's network: `network: host`."},
		fields.Field{
			Name: "network", Type: text("the name of a network"), Default: "none", Examples: []any{"tasks"},
			Doc: "The daemon's network that `network: default` means. What it reaches is up to the daemon: its own `bridge` reaches the host and what is near it, too.",
		},
		fields.Field{
			Name: "networks", Type: list(text("the name of a network")), Default: "all but `host` and `none`", Examples: []any{[]any{"tasks"}},
			Doc: "The daemon's networks that tasks may name.",
		},
		fields.Field{
			Name: "image_ttl", Type: durationType(), Default: "for ever", Also: []string{"ttl"}, Examples: []any{"72h"},
			Doc: "How long an image that was pulled for a task is kept without being used. Images that were there before are never removed.",
		},
		fields.Field{
			Name: "verify", Type: toggle(), Default: "false",
			Doc: "Tries each image that was pulled by making a container of it, and removes one that is damaged.",
		},
	)
}
