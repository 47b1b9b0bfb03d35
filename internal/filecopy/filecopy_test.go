package filecopy_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/caissonrun/caisson/internal/filecopy"
)

func create(t *testing.T, data []byte, holes ...int64) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	at := int64(0)
	for i := 0; i <= len(holes); i++ {
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
		at += int64(len(data))
		if i < len(holes) {
			at += holes[i]
		}
	}
	return f
}

func contents(t *testing.T, f *os.File) []byte {
	t.Helper()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

func TestCopy(t *testing.T) {
	for name, src := range map[string]*os.File{
		"Empty":  create(t, nil),
		"Small":  create(t, []byte("x")),
		"Large":  create(t, random(9<<20)),
		"Holes":  create(t, random(70_000), 1<<20, 300_000),
		"AtEnd":  create(t, nil, 1<<20),
		"Middle": create(t, random(4096), 1<<22),
	} {
		want := contents(t, src)
		digest := sha256.Sum256(want)
		for _, sum := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dst := create(t, nil)
				var told int64
				got, err := filecopy.Copy(t.Context(), dst, src, &filecopy.Options{Sum: sum, Progress: func(n int64) { told += n }})
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(contents(t, dst), want) {
					t.Error("the copy differs")
				}
				if got.Size != int64(len(want)) || told != got.Size {
					t.Errorf("size %d, progress %d, want %d", got.Size, told, len(want))
				}
				if sum != (got.SHA256 == hex.EncodeToString(digest[:])) {
					t.Errorf("digest %q, asked for: %v", got.SHA256, sum)
				}
			})
		}
	}
}

func TestSum(t *testing.T) {
	src := create(t, random(100_000), 1<<20)
	digest := sha256.Sum256(contents(t, src))
	got, err := filecopy.Sum(t.Context(), src, nil)
	if err != nil || got.SHA256 != hex.EncodeToString(digest[:]) {
		t.Errorf("Sum = %+v, %v", got, err)
	}
}

func TestHolesStay(t *testing.T) {
	src := create(t, []byte("x"), 1<<40)
	dst := create(t, nil)
	if _, err := filecopy.Copy(t.Context(), dst, src, nil); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dst.Name())
	if err != nil || info.Size() != 1<<40+2 {
		t.Fatalf("size %v, %v", info.Size(), err)
	}
	if blocks(info) > 1<<20 {
		t.Errorf("%d bytes on disk for a file of holes", blocks(info))
	}
}

func TestLimit(t *testing.T) {
	src := create(t, []byte("12345"))
	dst := create(t, nil)
	if _, err := filecopy.Copy(t.Context(), dst, src, &filecopy.Options{Limit: 4}); !errors.Is(err, filecopy.ErrLimit) {
		t.Errorf("over the limit: %v, want ErrLimit", err)
	}
	if _, err := filecopy.Copy(t.Context(), dst, src, &filecopy.Options{Limit: 5}); err != nil {
		t.Errorf("at the limit: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	src := create(t, random(100_000))
	if _, err := filecopy.Sum(ctx, src, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Sum = %v, want Canceled", err)
	}
	hole := create(t, []byte("x"), 1<<40)
	if _, err := filecopy.Sum(ctx, hole, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Sum of holes = %v, want Canceled", err)
	}
}

// A file that grows or shrinks while it is read is told.
func TestChanged(t *testing.T) {
	for name, size := range map[string]int64{"Grown": 5 << 20, "Shrunk": 10} {
		t.Run(name, func(t *testing.T) {
			src := create(t, random(3<<20))
			once := false
			_, err := filecopy.Sum(t.Context(), src, &filecopy.Options{Progress: func(int64) {
				if !once {
					once = true
					if err := os.Truncate(src.Name(), size); err != nil {
						t.Error(err)
					}
				}
			}})
			if !errors.Is(err, filecopy.ErrChanged) {
				t.Errorf("Sum = %v, want ErrChanged", err)
			}
		})
	}
}

// Between file systems nothing can be cloned or copied by the kernel alone on
// every kernel; the data is the same.
func TestOtherFileSystem(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "filecopy")
	if err != nil {
		t.Skip("no second file system here")
	}
	defer os.RemoveAll(dir)
	dst, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	src := create(t, random(200_000), 1<<20)
	if _, err := filecopy.Copy(t.Context(), dst, src, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(contents(t, dst), contents(t, src)) {
		t.Error("the copy differs")
	}
}
