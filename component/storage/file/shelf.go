//go:build unix

package file

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/caissonrun/caisson/component/storage"
	"github.com/caissonrun/caisson/component/storage/internal/objects"
	"github.com/caissonrun/caisson/internal/atomicfile"
	"github.com/caissonrun/caisson/internal/filecopy"
)

func shelf(id storage.ID) string { return id.Stage + "/" + id.Bucket + "/" + id.Table + ".csv" }

// ShownName implements objects.Shelf.
func (s *store) ShownName(id storage.ID) string { return s.path(shelf(id)) }

// Shown implements objects.Shelf.
func (s *store) Shown(id storage.ID) (objects.Print, time.Time, error) {
	info, err := os.Stat(s.path(shelf(id)))
	if err != nil {
		return objects.Print{}, time.Time{}, s.wrap(shelf(id), err)
	}
	return printOf(info), info.ModTime(), nil
}

// Has implements objects.Shelf.
func (s *store) Has(key string) bool {
	_, err := os.Stat(s.path(key))
	return err == nil
}

// OpenShown implements objects.Shelf.
func (s *store) OpenShown(id storage.ID) (io.ReadCloser, error) {
	return s.Open(context.Background(), shelf(id))
}

// Show implements objects.Shelf: TABLE.csv becomes another name of the object.
func (s *store) Show(id storage.ID, key string) error {
	work, err := s.work.Dir()
	if err != nil {
		return s.wrap(shelf(id), err)
	}
	name := filepath.Join(work, rand.Text())
	if os.Link(s.path(key), name) != nil {
		if err := s.copy(key, name); err != nil {
			return errors.Join(s.wrap(shelf(id), err), ignoreAbsent(os.Remove(name)))
		}
	}
	path := s.path(shelf(id))
	// Renaming one name of a file to another of the same does nothing.
	if err := errors.Join(os.Rename(name, path), ignoreAbsent(os.Remove(name))); err != nil {
		return s.wrap(shelf(id), err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
		return s.wrap(shelf(id), err)
	}
	return nil
}

// copy is for file systems without hard links. The copy has the time of the
// object, so that it is known again.
func (s *store) copy(key, name string) error {
	src, err := os.Open(s.path(key))
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer dst.Close()
	if _, err := filecopy.Copy(context.Background(), dst, src, nil); err != nil {
		return err
	}
	if err := errors.Join(dst.Chmod(0o444), os.Chtimes(name, info.ModTime(), info.ModTime())); err != nil {
		return err
	}
	return dst.Sync()
}
