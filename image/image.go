//go:build unix

// Package image keeps images for the engines that need a root file system. A
// [Store] brings an image here, checks it, unpacks it once for all its
// sandboxes, and removes what nobody has used for long.
//
// An image is named by a reference (docs/task.md) and fixed by the digest of
// its manifest. Its blobs are kept under their digests. All its layers are
// unpacked onto one folder, which is shared and which nobody ever writes to; a
// sandbox gets it below an overlay, or else a copy of its own.
//
// Images, registries and archives are hostile: every byte is checked against a
// digest that was known before, every size and count has a limit, and what a
// layer names is touched through package safefs only. Labels and annotations
// are shown and never acted upon.
//
// Several processes may use one store at the same time, and each may be killed
// at any time: what is durable is enough for the next one to go on.
package image

import (
	"context"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/caissonrun/caisson"
)

// A Pull says when an image is looked for outside of the store.
type Pull string

// The values of Pull. Empty is PullMissing.
const (
	PullMissing Pull = "missing" // if the store does not have it
	PullAlways  Pull = "always"  // each time; what has not changed is not fetched again
	PullNever   Pull = "never"
)

// A Request names an image and how it may be had.
type Request struct {
	// Ref is the reference: name[:tag][@digest], docker://..., oci:DIR[:tag],
	// oci-archive:FILE, docker-archive:FILE, https://....
	Ref string
	// Platform is such as linux/arm64 or linux/arm/v7; empty: this host's.
	Platform string
	Pull     Pull
	// Username and Password are the task's own for the registry in Ref. They are
	// used for this request alone, and what they gave is given only to requests
	// that have them too. IdentityToken stands in the place of both.
	Username, Password, IdentityToken string
	// Dir is the absolute folder in which relative paths in Ref start.
	Dir string
	// Trusted says that the caller is who submitted the task: files are read with
	// its rights, and a registry may have a private address.
	Trusted bool
	// TrustPrefix and InsecureOptions are those of the task, see docs/task.md;
	// the store's options say whether they are permitted.
	TrustPrefix     string
	InsecureOptions []string
	// Progress is told how far the call is; from one goroutine at a time. Nil:
	// nobody is told.
	Progress func(Progress)

	module  bool // a WebAssembly module is meant
	machine bool // the image of a virtual machine is meant
}

// A Progress is how far one part of an image is. The parts of an image are its
// layers; the last part is unpacking, which has no digest.
type Progress struct {
	Digest string        // of the layer
	Done   caisson.Bytes // of it, or of what is to be unpacked
	Total  caisson.Bytes // 0: not known
}

// An Image is one that is completely in the store.
type Image struct {
	Ref      string        `json:"ref"`      // what it was asked for by
	Name     string        `json:"name"`     // the same in full, such as docker.io/library/busybox:stable
	Digest   string        `json:"digest"`   // of the manifest: sha256:...
	ID       string        `json:"id"`       // digest of the configuration, what docker shows as image id
	Platform string        `json:"platform"` // such as linux/amd64
	Size     caisson.Bytes `json:"size"`     // of the layers as they were sent
	Created  time.Time     `json:"created,omitzero"`
	Layers   int           `json:"layers"`
	Config   Config        `json:"config"`

	manifest *v1.Manifest
	diffIDs  []v1.Hash
}

// A Config is what an image says about how it wants to be run. Nothing in it is
// checked or trusted.
type Config struct {
	Env          []string          `json:"env,omitempty"` // NAME=value
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	Workdir      string            `json:"workdir,omitempty"`
	User         string            `json:"user,omitempty"`
	StopSignal   string            `json:"stop_signal,omitempty"`
	Volumes      []string          `json:"volumes,omitempty"` // paths inside, sorted
	ExposedPorts []string          `json:"exposed_ports,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Shell        []string          `json:"shell,omitempty"`
}

// A Mode is how a sandbox gets a root file system of its own.
type Mode string

// The modes, best first. Empty is the best that works here.
const (
	ModeOverlay Mode = "overlay" // the unpacked folder itself, for an overlay's lower one
	ModeReflink Mode = "reflink" // a copy that shares its blocks
	ModeCopy    Mode = "copy"

	modeDisk    Mode = "disk"    // of a lease for Store.Disk
	modeMachine Mode = "machine" // likewise, for Store.Machine
)

// A Lease says who uses an unpacked image. It is durable: until Unlease, or
// until Sweep finds that the user is gone, nothing of the image is removed.
type Lease struct {
	// Owner names the user, such as "TASK/ATTEMPT/STEP", at most 255 bytes.
	Owner string
	// Dir is an empty folder of the caller's in which a copy is made, if it is a
	// copy; the caller removes it. Empty: it is made in the store, and Unlease
	// removes it.
	Dir string
	// Mode is what the caller can use: ModeOverlay means any, ModeCopy only
	// a copy (by reflink where that works). Empty: as ModeOverlay.
	Mode Mode
	// Progress is told how much was unpacked. Nil: nobody is told.
	Progress func(Progress)
}

// A RootFS is an unpacked image. Nothing in it is trusted: any path in it may
// be a link to anywhere.
type RootFS struct {
	Path string // absolute, without links
	// Shared says that others use the folder as well: nobody may write to it. The
	// other way round it belongs to the lease's owner alone.
	Shared bool
	Mode   Mode
}

// A Record is a name in the store.
type Record struct {
	Name     string        `json:"name"`
	Digest   string        `json:"digest"`
	ID       string        `json:"id"`
	Platform string        `json:"platform"`
	Size     caisson.Bytes `json:"size"`
	Created  time.Time     `json:"created,omitzero"` // when it was built
	Pulled   time.Time     `json:"pulled"`
	Used     time.Time     `json:"used"`     // for the last time
	InUse    bool          `json:"in_use"`   // by a lease
	Private  bool          `json:"private"`  // was pulled with a task's own credentials
	Unpacked bool          `json:"unpacked"` // its root file system is ready
	// UnpackedSize is what that takes on disk. It is shared by all images with the
	// same layers.
	UnpackedSize caisson.Bytes `json:"unpacked_size"`
	// Skipped are the names of devices in the layers, which are not unpacked; at
	// most 100.
	Skipped []string `json:"skipped,omitempty"`
}

// GCOptions says what a collection leaves. Zero values set no bound.
type GCOptions struct {
	MaxAge   time.Duration // images not used for so long are removed
	MaxBytes caisson.Bytes // the least recently used are removed until the store is no larger
	MinFree  caisson.Bytes // and until the file system has so much free
	All      bool          // everything that is not in use is removed
	DryRun   bool          // it is only said what would be removed
}

// A GCResult is what a collection removed.
type GCResult struct {
	Images []string      `json:"images"` // names
	Blobs  int           `json:"blobs"`
	Trees  int           `json:"trees"` // unpacked root file systems
	Freed  caisson.Bytes `json:"freed"`
	Kept   caisson.Bytes `json:"kept"` // what the store holds now
}

// puller is what Get asks for an image that it must look for outside; package
// code of pull.go is the one implementation, tests have others.
type puller interface {
	// pull brings manifest, configuration and layers of the image to blobs, all
	// of them checked, and returns which it is. claim is told every digest
	// before it is looked for in blobs: from then on it is not removed.
	pull(ctx context.Context, req *Request, blobs *blobs, claim *claim) (*pulled, error)
	// check reports whether what the store has under the request's name may be
	// used for it as it is. It asks nobody outside. False means that only a pull
	// can tell: because of the platform, the credentials or the policy, or
	// because a file is what is named. Errors: as pull, where a pull can't help.
	check(ctx context.Context, req *Request, known *known) (bool, error)
	// permit is as pull, and fetches no more than what tells whether the image
	// may be had. It returns the reference that somebody else is to fetch.
	permit(ctx context.Context, req *Request, blobs *blobs, claim *claim) (string, error)
}

// pulled is what a pull found.
type pulled struct {
	name     string   // in full, under which the image is recorded
	digest   v1.Hash  // of the image's manifest, not of an index
	platform string   // such as linux/amd64
	access   string   // who may use it: empty is everybody; else only check knows
	tags     []string // names that an archive gives the image itself; nobody has checked them
}

// known is what the store has under a name.
type known struct {
	name     string
	digest   v1.Hash
	platform string
	access   []string // of all pulls that gave it
}
