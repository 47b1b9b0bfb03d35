//go:build unix

package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/image/machine"
	"github.com/caissonrun/caisson/internal/safefs"
)

const (
	// machineType is what the disk of a machine is kept under, as it was sent: an
	// artifact of one layer, as modules are.
	machineType types.MediaType = "application/vnd.caisson.machine.v1"
	// machinePlatform is what is shown of it: which processor a disk is for is not
	// known.
	machinePlatform = "machine"
	machineName     = "machine" // in a tree's folder: the files of the image
	machineFormat   = 1         // counts up when the unpacker makes something else of it
)

// A Machine is an unpacked image of a virtual machine.
type Machine struct {
	Dir string // where its files are, which nobody may write to
	machine.Image
}

// isMachine reports whether an artifact is the image of a machine.
func (img *Image) isMachine() bool { return isMachine(img.manifest) }

func isMachine(m *v1.Manifest) bool {
	return len(m.Layers) == 1 && m.Layers[0].MediaType == machineType && !isImageConfig(m.Config.MediaType)
}

// machineKey names the tree of a machine's image.
func machineKey(m *v1.Manifest) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "machine %d\n%s\n", machineFormat, m.Layers[0].Digest))
	return hex.EncodeToString(sum[:])
}

// GetMachine brings the image of a machine from a registry or a folder of this
// host: an artifact of one layer of type application/vnd.caisson.machine.v1, which
// is in any form that machine.Unpack knows. Policies, signatures and credentials
// are those of images. Nothing is unpacked yet.
//
// Errors: as Get; ErrUnsupported for an artifact that is no such image.
func (s *Store) GetMachine(ctx context.Context, req *Request) (*Image, error) {
	own := *req
	own.machine = true
	return s.Get(ctx, &own)
}

// chooseMachine returns the manifest that a reference leads to if it is the
// image of a machine, before any more of it is fetched.
func (p *pulling) chooseMachine(ctx context.Context, doc *document) (*candidate, error) {
	if doc.index != nil && doc.digest == (v1.Hash{}) && len(doc.index.Manifests) == 1 {
		// What a folder has under the name.
		only, err := parseDigest(doc.index.Manifests[0].Digest.String())
		if err != nil {
			return nil, invalid("the index: %w", err)
		}
		if doc, err = p.src.manifest(ctx, only); err != nil {
			return nil, err
		}
	}
	if doc.index != nil {
		return nil, unsupported("it is an index of several: name the image of a machine by its own digest")
	}
	m := doc.image
	if !isMachine(m) {
		return nil, unsupported("it is not the image of a machine, which has one layer of type %q", string(machineType))
	}
	l := &m.Layers[0]
	if _, err := parseDigest(l.Digest.String()); err != nil {
		return nil, invalid("its layer: %w", err)
	}
	if l.Size < 0 || l.Size > int64(p.remote.limits.LayerBytes) {
		return nil, invalid("its layer has %d bytes, and may have %s", l.Size, p.remote.limits.LayerBytes)
	}
	config, err := p.small(ctx, &m.Config, int64(p.remote.limits.ConfigBytes))
	if err != nil {
		return nil, fmt.Errorf("its configuration: %w", err)
	}
	return &candidate{doc: doc, config: config, platform: p.want}, nil
}

// KeepMachine keeps the image of a machine that is in a file, in any form that
// machine.Unpack knows, until it is collected as images are. Ref is where it came
// from, a URL or the absolute path of a file of this host, and sum its sha256 in
// hex. Nothing is unpacked yet.
//
// Errors: ErrInvalid if the file has another digest, is too large, or ref is
// neither; ErrExhausted.
func (s *Store) KeepMachine(ctx context.Context, ref, sum, file string) (*Image, error) {
	name, err := machineRecord(ref, sum)
	if err != nil {
		return nil, err
	}
	err = s.keep(ctx, &artifact{
		name: name, sum: sum, file: file, kind: machineType, platform: machinePlatform, limit: int64(s.opts.Limits.LayerBytes),
	})
	if err != nil {
		return nil, err
	}
	return s.KeptMachine(ctx, ref, sum)
}

// KeptMachine returns the image that KeepMachine was given under the same ref and
// sum.
//
// Errors: ErrNotFound if it is not here.
func (s *Store) KeptMachine(_ context.Context, ref, sum string) (*Image, error) {
	name, err := machineRecord(ref, sum)
	if err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	r, err := s.record(name)
	if err != nil {
		return nil, err
	}
	img, err := s.load(r)
	if err != nil {
		return nil, err
	}
	if !img.isMachine() {
		return nil, problem(name, caisson.ErrNotFound, errors.New("not the image of a machine"))
	}
	s.touch(name)
	return img, nil
}

// machineRecord is the name of a machine's image in the store.
func machineRecord(ref, sum string) (string, error) {
	const item = "image of a machine"
	digest := "sha256:" + sum
	if _, err := parseDigest(digest); err != nil {
		return "", problem(item, caisson.ErrInvalid, err)
	}
	if filepath.IsAbs(ref) {
		return filepath.Clean(ref) + "@" + digest, nil
	}
	web, err := webModule(ref)
	if err != nil {
		return "", problem(item, caisson.ErrInvalid, fmt.Errorf("%q is neither a URL nor an absolute path", shorten(ref)))
	}
	web.Digest = digest
	return web.String(), nil
}

// Machine unpacks the image of a machine unless that is done, and notes durably
// that lease.Owner uses it: as RootFS, but there is never a copy. lease.Mode and
// lease.Dir have no meaning.
//
// Errors: ErrUnsupported if it is no such image, or of a kind that can't be used;
// ErrInvalid for one that is damaged, or larger than the limits permit; else as
// RootFS.
func (s *Store) Machine(ctx context.Context, img *Image, lease *Lease) (*Machine, error) {
	own := *lease
	own.Mode, own.Dir = modeMachine, ""
	_, dir, err := s.use(ctx, img, &own, func(string) error { return nil })
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, sorted(img.Name, err)
	}
	info, err := treeInfoOf(dir)
	if err != nil {
		return nil, sorted(img.Name, err)
	}
	if info.Machine == nil {
		return nil, problem(img.Name, caisson.ErrInvalid, fmt.Errorf("%s says nothing of a machine: remove the image and get it again", treeFile))
	}
	return &Machine{Dir: filepath.Join(dir, machineName), Image: *info.Machine}, nil
}

// unpackMachine unpacks the one layer of a machine's image to a tree's folder.
func (s *Store) unpackMachine(ctx context.Context, img *Image, trees *safefs.Root, temp string, tell func(Progress)) error {
	root, err := trees.Sub(temp + "/" + machineName)
	if err != nil {
		return sorted(img.Name, err)
	}
	defer root.Close()
	digest := img.manifest.Layers[0].Digest
	blob, err := s.blobs.open(digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	limits := &machine.Limits{Sent: s.opts.Limits.LayerBytes, Disk: s.opts.Limits.Bytes, Written: s.opts.Limits.Bytes}
	got, err := machine.Unpack(ctx, &countingReader{blob, &progress{tell: tell, total: img.Size}}, root, digest.Hex, limits)
	if errors.Is(err, caisson.ErrInvalid) {
		// Who is to blame: who made the image, or this disk?
		err = cmp.Or(s.blobs.verify(digest), err)
	}
	if err != nil {
		return layerError(img, digest, err)
	}
	onDisk, entries, err := root.Usage(ctx, ".")
	if err != nil {
		return sorted(img.Name, err)
	}
	data, err := json.Marshal(&treeInfo{Version: treeFormat, Bytes: caisson.Bytes(onDisk), Entries: int(entries), Machine: got})
	if err != nil {
		return err
	}
	return sorted(img.Name, trees.WriteFile(temp+"/"+treeFile, append(data, '\n'), 0o600, nil))
}
