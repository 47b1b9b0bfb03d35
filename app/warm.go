package app

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/executor"
)

// pools returns the warm pools of the configuration, by name.
func pools(cfg *Config) (map[string]*executor.Pool, error) {
	all := make(map[string]*executor.Pool, len(cfg.Warm))
	for name, w := range cfg.Warm {
		task, err := w.Task()
		if err != nil {
			return nil, &caisson.Error{Op: caisson.OpConfig, Item: "warm." + name, Kind: caisson.ErrInvalid, Err: err}
		}
		all[name] = &executor.Pool{Task: task, Size: min(max(w.Size, 1), executor.MaxPool)}
	}
	return all, nil
}

// settings is a digest of what sandboxes depend on besides their specs, the program and
// the host: all of the configuration but the pools, which are compared by themselves.
func settings(cfg *Config) string {
	own := *cfg
	own.Warm = nil
	hash := sha256.New()
	encoder := json.NewEncoder(hash)
	if encoder.Encode(&own) != nil || encoder.Encode(cfg.Sections) != nil {
		return ""
	}
	return hex.EncodeToString(hash.Sum(nil))
}
