package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path"

	"github.com/caissonrun/caisson"
)

// An Assigner is an Engine whose sandboxes can be made before it is known what will
// run in them: Features.Warm.
type Assigner interface {
	// Assign gives a sandbox that Create has made, and in which nothing was started,
	// another program: what it is to run, with its arguments, input, environment,
	// secrets, times and OnExit, is what spec says from now on. Everything else that
	// spec says must be as it was at Create. It returns the sandbox, which the caller
	// then starts.
	//
	// A sandbox in which anything was started is never given another program.
	//
	// Errors: ErrNotFound if spec.Dir has no handle; ErrExists if the program was
	// started; ErrUnsupported if spec asks for another sandbox than the one that is
	// there, or for a secret in a file; ErrAborted if that is gone. After an error the
	// sandbox may have either program, and is to be destroyed.
	Assign(ctx context.Context, spec *Spec) (Sandbox, error)
}

// A Shape is all of a spec that a sandbox is made from before its program is known:
// Assign can't change it.
type Shape struct {
	// Digest is that of everything but the program's part and its folder.
	Digest string `json:"digest"`
	// Workdir is the folder that the program starts in, which is made where it is
	// missing.
	Workdir string `json:"workdir"`
}

// Shape returns the shape of s.
func (s *Spec) Shape() (Shape, error) {
	rest := *s
	rest.Args, rest.Run, rest.ImageEntrypoint, rest.Input = nil, "", false, nil
	rest.Env, rest.Workdir, rest.Secrets = nil, "", nil
	rest.Timeout, rest.StopSignal, rest.Grace, rest.Linger = 0, 0, 0, 0
	rest.OnExit, rest.OnExitEnv = nil, nil
	if s.RootFS != nil {
		root := *s.RootFS
		root.Image = "" // a name for people
		rest.RootFS = &root
	}
	if rest.Network.Mode == caisson.NetworkNone {
		rest.Network.Mode = "" // as it is where nothing is said
	}
	data, err := json.Marshal(&rest)
	if err != nil {
		return Shape{}, err
	}
	sum := sha256.Sum256(data)
	out := Shape{Digest: hex.EncodeToString(sum[:]), Workdir: caisson.WorkDir}
	if s.Workdir != "" {
		out.Workdir = path.Clean(s.Workdir)
	}
	return out, nil
}

// Takes returns nil if a sandbox of this shape can be given the program of spec.
// With moves it may start in the work folder, too, which every sandbox has.
//
// Errors: ErrUnsupported.
func (sh Shape) Takes(spec *Spec, moves bool) error {
	for _, secret := range spec.Secrets {
		if secret.As == caisson.SecretFile {
			return unfit("secrets."+secret.Name, "the sandbox was made without its file")
		}
	}
	want, err := spec.Shape()
	switch {
	case err != nil:
		return err
	case sh.Digest == "" || want.Digest != sh.Digest:
		return unfit(spec.ID, "another sandbox was made than the program is to run in")
	case want.Workdir != sh.Workdir && (!moves || want.Workdir != caisson.WorkDir):
		return unfit("workdir", "the sandbox was made for another one")
	}
	return nil
}

func unfit(item, why string) error {
	return &caisson.Error{Op: caisson.OpCreate, Item: item, Kind: caisson.ErrUnsupported, Err: errors.New(why)}
}
