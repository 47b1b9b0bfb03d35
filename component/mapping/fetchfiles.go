//go:build unix

package mapping

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/component"
	"github.com/caissonrun/caisson/component/folder"
	"github.com/caissonrun/caisson/component/storage"
)

// defaultFiles is how many files an input has at most where it has no limit.
const defaultFiles = 100

// files fetches what the inputs of files choose.
func (f *fetcher) files(ctx context.Context) error {
	var wanted []storage.File
	seen := map[int64]bool{}
	for i := range f.Config.Files {
		c := &f.Config.Files[i]
		found, err := f.choose(ctx, c)
		if err != nil {
			item := fmt.Sprintf("storage.input.files[%d]", i)
			if component.FaultOf(err) == component.ApplicationFault || ctx.Err() != nil {
				return fmt.Errorf("%s: %w", item, err)
			}
			return stageIn(item, err)
		}
		f.keepFileState(c, found)
		for _, file := range found {
			if !seen[file.ID] {
				seen[file.ID] = true
				wanted = append(wanted, file)
			}
			if len(c.ProcessedTags) > 0 {
				f.out.Processed = append(f.out.Processed, Processed{File: file.ID, Tags: c.ProcessedTags})
			}
		}
	}
	fetched := make([]FetchedFile, len(wanted))
	err := together(f.Parallel, len(wanted), func(i int) (err error) {
		fetched[i], err = f.file(ctx, &wanted[i])
		if err != nil && ctx.Err() == nil {
			err = component.Application(fmt.Errorf("file %q (%d): %w", wanted[i].Name, wanted[i].ID, err))
		}
		return err
	})
	f.out.Files = fetched
	return err
}

// choose asks the storage for the files of one input.
func (f *fetcher) choose(ctx context.Context, c *component.InputFile) ([]storage.File, error) {
	if err := checkFiles(c); err != nil {
		return nil, err
	}
	q := &storage.FileQuery{IDs: c.FileIDs, Query: c.Query, Limit: c.Limit}
	if q.Limit == 0 {
		q.Limit = max(defaultFiles, len(q.IDs))
	}
	for _, t := range tagsOf(c) {
		if t.Match == "exclude" {
			q.NotTags = append(q.NotTags, t.Name)
		} else {
			q.Tags = append(q.Tags, t.Name)
		}
	}
	switch c.ChangedSince {
	case "":
	case Adaptive:
		q.After, q.Settled = f.after(c), true
	default:
		t, err := ParseTime(c.ChangedSince, f.now)
		if err != nil {
			return nil, invalid("changed_since: %w", err)
		}
		q.ChangedSince = t
	}
	found, err := f.Storage.Files(ctx, q)
	if err != nil {
		return nil, ofStorage(err)
	}
	for _, id := range c.FileIDs {
		if !slices.ContainsFunc(found, func(file storage.File) bool { return file.ID == id }) {
			return nil, &caisson.Error{Kind: caisson.ErrNotFound, Err: fmt.Errorf("there is no file %d", id)}
		}
	}
	if c.ChangedSince == Adaptive && len(found) == q.Limit {
		f.warn("input of files: there may be more than %d new files, of which only the newest are fetched, now and later; set a limit", q.Limit)
	}
	return found, nil
}

// checkFiles says which options can't stand together.
func checkFiles(c *component.InputFile) error {
	sourced := c.Source != nil && len(c.Source.Tags) > 0
	switch {
	case len(c.Tags) == 0 && !sourced && c.Query == "" && len(c.FileIDs) == 0:
		return invalid("at least one of tags, source.tags, query and file_ids must be given")
	case len(c.Tags) > 0 && sourced:
		return invalid("only one of tags and source.tags can be given")
	case len(c.FileIDs) > 0 && (len(c.Tags) > 0 || sourced || c.Query != "" || c.ChangedSince != "" || c.Limit != 0):
		return invalid("file_ids can only stand beside overwrite and processed_tags")
	case c.Query != "" && c.ChangedSince != "":
		return invalid("changed_since can't stand beside query")
	case !c.Overwrite:
		return invalid("overwrite can't be turned off for files of a data folder")
	case c.Limit < 0:
		return invalid("limit %d is less than nothing", c.Limit)
	case c.FilterByRunID:
		return unsupported("filter_by_run_id, which is no more: files have a tag with the run's id")
	}
	return nil
}

// tagsOf returns the tags that an input chooses by.
func tagsOf(c *component.InputFile) []component.SourceTag {
	if c.Source != nil && len(c.Source.Tags) > 0 {
		return c.Source.Tags
	}
	var out []component.SourceTag
	for _, t := range c.Tags {
		out = append(out, component.SourceTag{Name: t})
	}
	return out
}

// after returns the id that files of an input are newer than.
func (f *fetcher) after(c *component.InputFile) int64 {
	for _, s := range f.State.Files {
		if sameTags(s.Tags, tagsOf(c)) {
			id, _ := strconv.ParseInt(s.LastImportID, 10, 64) // text of somebody else: start again
			return id
		}
	}
	return 0
}

func sameTags(a, b []component.SourceTag) bool {
	key := func(tags []component.SourceTag) []string {
		var out []string
		for _, t := range tags {
			out = append(out, either(t.Match, "include")+" "+t.Name)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return slices.Equal(key(a), key(b))
}

// keepFileState notes how far files of some tags are read.
func (f *fetcher) keepFileState(c *component.InputFile, found []storage.File) {
	tags := tagsOf(c)
	if len(tags) == 0 {
		return
	}
	last := f.after(c)
	for _, file := range found {
		last = max(last, file.ID)
	}
	if last == 0 {
		return
	}
	s := component.FileState{Tags: tags, LastImportID: strconv.FormatInt(last, 10)}
	files := &f.out.State.Files
	for i := range *files {
		if sameTags((*files)[i].Tags, tags) {
			(*files)[i] = s
			return
		}
	}
	*files = append(*files, s)
}

// file puts one file with its manifest into the folder.
func (f *fetcher) file(ctx context.Context, file *storage.File) (FetchedFile, error) {
	done := FetchedFile{ID: file.ID, Name: fileName(file)}
	if err := ctx.Err(); err != nil {
		return done, err
	}
	r, err := f.Storage.OpenFile(ctx, file.ID)
	if err != nil {
		return done, err
	}
	defer r.Close()
	c := f.meter.count(Progress{File: true, Name: done.Name, Total: file.Size})
	if file.Sliced {
		done.Bytes, err = f.unpack(ctx, done.Name, countReader{r, c})
	} else {
		done.Bytes, err = f.copy(ctx, done.Name, countReader{r, c})
	}
	if err != nil {
		return done, err
	}
	err = f.Folder.PutManifest(folder.Files, done.Name, &component.InFileManifest{
		ID: file.ID, Name: file.Name, Created: formatTime(file.Created), IsPublic: file.Public,
		IsEncrypted: file.Encrypted, IsSliced: file.Sliced, Tags: list(file.Tags), MaxAgeDays: file.MaxAge, SizeBytes: file.Size,
	})
	c.done(0)
	return done, err
}

func (f *fetcher) copy(ctx context.Context, name string, r io.Reader) (int64, error) {
	out, err := f.Folder.Create(folder.Files, name)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	n, err := io.Copy(out, stopReader{ctx, r})
	if err != nil {
		return n, err
	}
	return n, out.Commit(false)
}

// stopReader ends with its context.
type stopReader struct {
	ctx context.Context // of the one call that the reader lives for
	r   io.Reader
}

func (s stopReader) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

// fileName returns the name that a file has in in/files: with its id in front,
// and nothing in it that could lead elsewhere.
func fileName(file *storage.File) string {
	const most = 200 // bytes: a manifest's name is longer
	clean := strings.Map(func(c rune) rune {
		if c == '/' || c == utf8.RuneError || unicode.IsControl(c) {
			return '_'
		}
		return c
	}, strings.ToValidUTF8(file.Name, "_"))
	for len(clean) > most {
		_, size := utf8.DecodeLastRuneInString(clean)
		clean = clean[:len(clean)-size]
	}
	name := fmt.Sprintf("%d_%s", file.ID, clean)
	if strings.HasSuffix(name, folder.ManifestSuffix) {
		name += "_" // or it would be taken for one
	}
	return name
}

// manifestTime is the form of times in manifests: libraries parse exactly this.
const manifestTime = "2006-01-02T15:04:05-0700"

// formatTime is nothing for no time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(manifestTime)
}

// scalarText returns a scalar of JSON as text.
func scalarText(data json.RawMessage) string {
	var s string
	if json.Unmarshal(data, &s) == nil {
		return s
	}
	return string(data)
}

// MarkFiles adds their processed_tags to files, after the output is mapped. It
// can be repeated. Files that are gone meanwhile are no error.
func MarkFiles(ctx context.Context, st storage.Storage, files []Processed) error {
	var problems []error
	for _, f := range files {
		err := st.TagFile(ctx, f.File, f.Tags)
		if err != nil && !errors.Is(err, caisson.ErrNotFound) {
			problems = append(problems, fmt.Errorf("file %d: %w", f.File, err))
		}
	}
	return errors.Join(problems...)
}
