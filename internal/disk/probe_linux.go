package disk

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	probePrefix = ".caisson-probe-"
	// placeFile, in a probe's folder, says what the probe makes.
	placeFile = "place.json"
	// probeYoung is the age from which a folder is not one that its probe is about
	// to lock.
	probeYoung = 10 * time.Second
)

// lockProbe marks the folder of a probe as that of a living process. The lock is
// on the folder itself, so that no file is left of it.
func lockProbe(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// clearProbes removes what probes below dir have left that were killed. What
// can't be removed is left to the next one.
func clearProbes(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, probePrefix+"*"))
	for _, parent := range left {
		info, err := os.Lstat(parent)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < probeYoung {
			continue
		}
		lock, err := lockProbe(parent)
		if err != nil {
			continue // it is at work
		}
		clearProbe(parent)
		lock.Close()
	}
}

func clearProbe(parent string) {
	place := new(Place)
	data, err := os.ReadFile(filepath.Join(parent, placeFile))
	if err == nil && json.Unmarshal(data, place) == nil && place.Dir == filepath.Join(parent, "disk") {
		ctx, cancel := context.WithTimeout(context.Background(), probeTime)
		defer cancel()
		if Remove(ctx, place) != nil {
			return
		}
	}
	_ = os.RemoveAll(parent)
}

// savePlace notes what a probe is about to make.
func savePlace(parent string, place *Place) error {
	data, err := json.Marshal(place)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(parent, placeFile), data, 0o600)
}
