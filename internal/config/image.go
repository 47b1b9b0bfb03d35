package config

import (
	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/fields"
)

// Image is the section [image].
type Image struct {
	HTTP              []string            `json:"http"`               // registries that are spoken to by http
	SkipTLS           []string            `json:"skip_tls"`           // registries whose certificate is not checked
	CAFile            string              `json:"ca_file"`            // who else is believed about servers
	Mirrors           map[string][]string `json:"mirrors"`            // by registry
	AuthFile          string              `json:"auth_file"`          // empty: docker's
	AllowPrivate      bool                `json:"allow_private"`      // images of every task may come from private addresses
	AllowFiles        []string            `json:"allow_files"`        // folders of archives
	Policies          []ImagePolicy       `json:"policies"`           //
	KeyDir            string              `json:"key_dir"`            // of the public keys in Policies
	RequireSignatures bool                `json:"require_signatures"` //
	AllowInsecure     []string            `json:"allow_insecure"`     // insecure_options that tasks may use
	Parallel          int                 `json:"parallel"`           // layers at the same time
	SetID             bool                `json:"set_id"`             // set-id bits are kept
	NoOverlay         bool                `json:"no_overlay"`         // root file systems are copied
	MaxLayer          caisson.Bytes       `json:"max_layer"`          //
	MaxSize           caisson.Bytes       `json:"max_size"`           //
	MaxEntries        int                 `json:"max_entries"`        //
	MaxDepth          int                 `json:"max_depth"`          //
	MaxRatio          int                 `json:"max_ratio"`          //
	GCAge             caisson.Duration    `json:"gc_age"`             // 0: any
	GCKeep            caisson.Bytes       `json:"gc_keep"`            // 0: any
	GCFree            caisson.Bytes       `json:"gc_free"`            // 0: any
}

// ImagePolicy is one of [image] policies.
type ImagePolicy struct {
	Prefix string   `json:"prefix"`
	Action string   `json:"action"` // accept, reject or signed
	Keys   []string `json:"keys"`   // files in key_dir
}

// defaultImage is the section where nothing is configured.
func defaultImage() Image {
	return Image{
		Parallel: 4, MaxLayer: 32 * caisson.GiB, MaxSize: 64 * caisson.GiB, MaxEntries: 2_000_000, MaxDepth: 255, MaxRatio: 200,
	}
}

func imageSection() *fields.Type {
	host := &fields.Type{
		Form: fields.Text, Want: "a registry such as example.com or 127.0.0.1:5000", MaxLength: 255,
		Pattern: fields.Match(`[A-Za-z0-9.\-]+(:[0-9]{1,5})?|\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?`),
	}
	mirror := &fields.Type{
		Form: fields.Text, Want: "a mirror such as mirror.example.com or 127.0.0.1:5000/docker", MaxLength: 1024,
		Pattern: fields.Match(`[A-Za-z0-9.\-]+(:[0-9]{1,5})?(/[a-z0-9._\-/]+)?`),
	}
	option := &fields.Type{Form: fields.Text, Enum: []string{"image", "pubkey", "tls", "http", "ondisk", "all-fetch", "all"}}
	keyFile := &fields.Type{Form: fields.Text, Want: "a file's name", NotEmpty: true, MaxLength: 255}
	text := &fields.Type{Form: fields.Text, Want: "text", MaxLength: 4096}
	policy := section("a policy", fields.Field{
		Name: "prefix", Type: text, Default: "everything",
		Doc: "A registry, a folder of one or a repository, such as `example.com/team`; or a scheme such as `oci-archive:`, maybe with a path.",
	}, fields.Field{
		Name: "action", Type: &fields.Type{Form: fields.Text, Enum: []string{"accept", "reject", "signed"}}, Required: true,
		Doc: "Whether images are let in: always, never, or with a signature by one of the keys.",
	}, fields.Field{
		Name: "keys", Type: list(keyFile), Default: "none", Doc: "Names of files in `key_dir`, a public key in each.",
	})
	return section("settings of images", append([]fields.Field{
		{
			Name: "http", Type: list(host), Default: "none", Also: []string{"insecure", "insecure_registries"}, Examples: []any{[]any{"127.0.0.1:5000"}},
			Doc: "Registries that are spoken to by http. All others are by https only.",
		},
		{
			Name: "skip_tls", Type: list(host), Default: "none", Also: []string{"skip_verify", "insecure_skip_verify"},
			Doc: "Registries whose certificate is not checked.",
		},
		{Name: "ca_file", Type: folder(), Default: "none", Doc: "A PEM file of certificates that are believed about registries, beside the system's."},
		{
			Name: "mirrors", Type: &fields.Type{Form: fields.Table, Want: "a list of mirrors for each registry", Elem: list(mirror), Key: host},
			Default: "none", Also: []string{"mirror"}, Examples: []any{map[string]any{"docker.io": []any{"mirror.example.com"}}},
			Doc: "What is tried in order before a registry. A task's own credentials are never sent to one.",
		},
		{
			Name: "auth_file", Type: folder(), Default: "`$REGISTRY_AUTH_FILE`, else docker's `config.json`", Also: []string{"auth", "docker_config"},
			Doc: "Where credentials, and helpers that know some, are found for tasks that bring none.",
		},
		{Name: "allow_private", Type: toggle(), Default: "false", Doc: "Lets images of every task come from loopback, private and link-local addresses; on the command line a task may always name such a registry itself."},
		{
			Name: "allow_files", Type: list(folder()), Default: "none", Examples: []any{[]any{"/srv/images"}},
			Doc: "Folders below which tasks that come through a front door other than the command line may name archives and folders of images.",
		},
		{Name: "policies", Type: list(policy), Default: "none: everything is accepted", Also: []string{"policy"}, Doc: "Which images are let in. Of those whose prefix fits, the longest counts."},
		{Name: "key_dir", Type: folder(), Default: "none", Also: []string{"keys"}, Doc: "The folder of the keys that policies name. Nobody else may be able to write to it."},
		{Name: "require_signatures", Type: toggle(), Default: "false", Doc: "Refuses images that no policy accepts or knows keys for."},
		{Name: "allow_insecure", Type: list(option), Default: "none", Doc: "The values of `insecure_options` that tasks may use."},
		{Name: "parallel", Type: whole("a number, 1 to 64", 1, 64), Default: "4", Doc: "How many layers of an image are fetched at the same time."},
		{
			Name: "set_id", Type: toggle(), Default: "false", Also: []string{"setid", "suid"},
			Doc: "Keeps the set-user-id and set-group-id bits of files. They give nothing to a program in a sandbox, which can't gain privileges, but they do to whoever runs the file on the host.",
		},
		{Name: "no_overlay", Type: toggle(), Default: "false", Doc: "Gives each sandbox a copy of the image instead of an overlay."},
	}, imageBounds()...)...)
}

// imageBounds are the settings that say how much.
func imageBounds() []fields.Field {
	size := sizeType()
	age := durationType()
	return []fields.Field{
		{Name: "max_layer", Type: size, Default: "32g", Doc: "What a layer may have as it is sent."},
		{Name: "max_size", Type: size, Default: "64g", Doc: "What all files of an image may have, unpacked."},
		{Name: "max_entries", Type: whole("a number of files, 1 or more", 1, 1<<31-1), Default: "2000000", Doc: "How many files, folders and links all layers of an image may have."},
		{Name: "max_depth", Type: whole("a number of folders, 1 to 1000", 1, 1000), Default: "255", Doc: "How deep folders may be."},
		{Name: "max_ratio", Type: whole("a number, 1 to 100000", 1, 100000), Default: "200", Doc: "How many times larger than it was sent a layer may become, beside its first 256 MiB."},
		{Name: "gc_age", Type: age, Default: "none", Also: []string{"ttl", "max_age"}, Examples: []any{"720h"}, Doc: "Images that were not used for so long are removed. What is in use never is. Old ones are looked for when tasks run, once an hour."},
		{Name: "gc_keep", Type: size, Default: "none", Examples: []any{"20g"}, Doc: "How large the images may become together before the least recently used are removed."},
		{Name: "gc_free", Type: size, Default: "none", Examples: []any{"5g"}, Doc: "How much room the file system of the images has at least to have before the least recently used are removed."},
	}
}
