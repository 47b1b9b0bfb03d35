package mapping

import (
	"errors"
	"fmt"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/storage"
)

// DefaultBucket returns the bucket that tables go to whose table id nobody
// named, such as "in.c-keboola-ex-foo-123"; "" if there is none. Errors:
// ErrInvalid if the component has one for each configuration and there is no
// configuration id.
func DefaultBucket(def *component.Definition, out *component.Output, configuration string) (string, error) {
	if out.DefaultBucket != "" {
		return out.DefaultBucket, nil
	}
	if def == nil || !def.DefaultBucket {
		return "", nil
	}
	if configuration == "" {
		return "", &caisson.Error{
			Op: caisson.OpStageOut, Item: "default bucket", Kind: caisson.ErrInvalid,
			Err: errors.New("it is named after the configuration, which has no id; or give storage.output.default_bucket"),
		}
	}
	return fmt.Sprintf("%s.c-%s-%s", either(def.DefaultBucketStage, "in"), sanitize(def.ID), sanitize(configuration)), nil
}

// sanitize makes a part of a bucket's name of an id.
func sanitize(id string) string {
	return strings.Map(func(c rune) rune {
		if c == '-' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			return c
		}
		return '-'
	}, id)
}

// destination says which table a file is loaded into: what the mapping says,
// else what the manifest says, else the file's name; with the default bucket
// where that is no table id.
func (p *planner) destination(source string, manifest, mapping *component.TableManifest) (string, Origin, error) {
	if mapping != nil && truthy(mapping.Destination) {
		if strings.Count(mapping.Destination, ".") != 2 {
			return "", "", fmt.Errorf("the mapping's destination %q is no table id: write STAGE.c-BUCKET.TABLE", mapping.Destination)
		}
		_, err := storage.ParseID(mapping.Destination)
		return mapping.Destination, FromMapping, err
	}
	table, origin := strings.TrimSuffix(source, ".csv"), FromName
	if manifest != nil && truthy(manifest.Destination) {
		table, origin = manifest.Destination, FromManifest
	}
	switch {
	case strings.Count(table, ".") == 2:
		if origin == FromName {
			p.warn("%q: its name is taken as a table id, which is deprecated: give it a destination", source)
		}
	case p.bucket == "":
		return "", "", fmt.Errorf("there is no table for it: %q is no table id, and there is no default bucket; give it a destination", table)
	default:
		table, origin = p.bucket+"."+table, FromBucket
		if strings.Count(table, ".") != 2 {
			return "", "", fmt.Errorf("%q is not a valid table id", table)
		}
	}
	_, err := storage.ParseID(table)
	return table, origin, err
}
