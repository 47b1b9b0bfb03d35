//go:build unix

// Package landing is what all stagers share that bring data in: where an input
// lands in the work folder, to whom it then belongs, and how its size and
// digest are checked while it streams.
package landing

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/safefs"
	"github.com/caissonrun/caisson/stage"
)

// Check says what is wrong with the fields of an input that mean the same for
// every stager. Errors: ErrInvalid.
func Check(in *caisson.Input) error {
	if err := checkTo(in.To); err != nil {
		return Invalid(in, err)
	}
	if digest, err := hex.DecodeString(in.SHA256); err != nil || len(digest) != 0 && len(digest) != sha256.Size {
		return Invalid(in, fmt.Errorf("sha256 %q: not 64 hexadecimal digits", in.SHA256))
	}
	if in.MaxSize < 0 {
		return Invalid(in, errors.New("max_size is negative"))
	}
	if _, err := Mode(in); err != nil {
		return Invalid(in, err)
	}
	return nil
}

// CheckNoGit refuses the git section for inputs that are no repositories.
func CheckNoGit(in *caisson.Input) error {
	if in.Git != nil {
		return Invalid(in, errors.New("git: only for git+ URLs"))
	}
	return nil
}

func checkTo(to string) error {
	clean := strings.TrimSuffix(to, "/")
	switch {
	case to == "":
		return errors.New("to is empty: say where in the work folder it goes")
	case strings.HasPrefix(to, "/"), clean != path.Clean(clean), clean == "..", strings.HasPrefix(clean, "../"):
		return fmt.Errorf("to %q: use a clean path relative to the work folder, without %q", to, "..")
	case strings.IndexByte(to, 0) >= 0:
		return fmt.Errorf("to %q: it has a zero byte", to)
	}
	return nil
}

// Mode returns the permission bits that the input asks for, or 0.
func Mode(in *caisson.Input) (fs.FileMode, error) {
	if in.Mode == "" {
		return 0, nil
	}
	bits, err := strconv.ParseUint(in.Mode, 8, 32)
	if err != nil || bits > 0o777 {
		return 0, fmt.Errorf("mode %q: use permission bits in octal, such as 0644", in.Mode)
	}
	return fs.FileMode(bits), nil
}

// Invalid makes an error of kind ErrInvalid about an input.
func Invalid(in *caisson.Input, err error) error {
	return &caisson.Error{Op: caisson.OpStageIn, Item: Item(in), Kind: caisson.ErrInvalid, Err: err}
}

// Item names an input in messages: by where it goes, because a URL may hold
// secrets.
func Item(in *caisson.Input) string {
	if in.To == "" {
		return "input"
	}
	return fmt.Sprintf("input %q", in.To)
}

// A Spot is where an input lands.
type Spot struct {
	Root  *safefs.Root  // the work folder
	Name  string        // in it
	Owner *safefs.Owner // of what is made; nil: the caller
	Perm  fs.FileMode   // of a file, where the input says it; else 0
	in    *caisson.Input
}

// At finds the input's spot in the work folder and makes the folders above it.
// The caller must Close it.
func At(in *caisson.Input, work *os.Root, env *stage.Env) (*Spot, error) {
	if err := Check(in); err != nil {
		return nil, err
	}
	root, err := safefs.FromOSRoot(work, nil)
	if err != nil {
		return nil, safefs.Sorted(caisson.OpStageIn, Item(in), err)
	}
	s := &Spot{Root: root, Name: path.Clean(in.To), Owner: owner(env), in: in}
	s.Perm, _ = Mode(in)
	if above := path.Dir(s.Name); above != "." {
		if err := root.MkdirAll(above, 0o755, s.Owner); err != nil {
			root.Close()
			return nil, safefs.Sorted(caisson.OpStageIn, Item(in), err)
		}
	}
	return s, nil
}

// owner returns who staged-in files are given to. Only root can give files
// away; anybody else's files are the caller's own.
func owner(env *stage.Env) *safefs.Owner {
	if os.Geteuid() != 0 {
		return nil
	}
	return &safefs.Owner{UID: env.UID, GID: env.GID}
}

// Close closes the work folder.
func (s *Spot) Close() error { return s.Root.Close() }

// Create begins the file that the input becomes; perm counts where the input
// does not say a mode.
func (s *Spot) Create(perm fs.FileMode) (*safefs.Temp, error) {
	if s.Perm != 0 {
		perm = s.Perm
	}
	if s.Name == "." {
		return nil, Invalid(s.in, errors.New("the work folder itself can't become a file"))
	}
	f, err := s.Root.CreateTemp(s.Name, perm, s.Owner)
	return f, safefs.Sorted(caisson.OpStageIn, Item(s.in), err)
}

// Verify compares a digest with the one that the input expects, if any.
func Verify(in *caisson.Input, sum string) error {
	if in.SHA256 == "" || strings.EqualFold(in.SHA256, sum) {
		return nil
	}
	return Invalid(in, fmt.Errorf("wrong digest: sha256 is %s, expected %s", sum, strings.ToLower(in.SHA256)))
}

// A Meter is written what streams in: it counts, computes the digest, refuses
// what is over the size limit, and tells the progress.
type Meter struct {
	in       *caisson.Input
	hash     hash.Hash
	size     int64
	total    int64
	progress func(done, total int64)
}

// NewMeter returns a Meter for an input of total bytes, -1 where unknown.
func NewMeter(in *caisson.Input, env *stage.Env, total int64) *Meter {
	return &Meter{in: in, hash: sha256.New(), total: total, progress: env.Progress}
}

// Write implements io.Writer. Errors: ErrInvalid over the limit.
func (m *Meter) Write(p []byte) (int, error) {
	m.size += int64(len(p))
	if err := CheckSize(m.in, m.size); err != nil {
		return 0, err
	}
	m.hash.Write(p)
	if m.progress != nil {
		m.progress(m.size, m.total)
	}
	return len(p), nil
}

// Size returns how many bytes were written.
func (m *Meter) Size() int64 { return m.size }

// Sum returns the digest of what was written, in hex.
func (m *Meter) Sum() string { return hex.EncodeToString(m.hash.Sum(nil)) }

// CheckSize refuses what is over the input's limit.
func CheckSize(in *caisson.Input, size int64) error {
	if in.MaxSize > 0 && size > int64(in.MaxSize) {
		return Invalid(in, fmt.Errorf("larger than max_size %s", in.MaxSize))
	}
	return nil
}

// Optional turns the absence of an optional input into Fetched.Absent.
func Optional(in *caisson.Input, got *stage.Fetched, err error) (*stage.Fetched, error) {
	if in.Optional && errors.Is(err, caisson.ErrNotFound) {
		return &stage.Fetched{Absent: true}, nil
	}
	return got, err
}
