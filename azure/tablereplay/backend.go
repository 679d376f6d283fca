package tablereplay

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/replay/cas"
)

// callTime bounds a request with its retries. One that hangs must not keep a receiver
// waiting until its locks are over.
const callTime = 10 * time.Second

// backend implements cas.Backend and cas.Batcher.
type backend struct {
	client *aztables.Client
	name   string // in errors
}

var _ cas.Batcher = (*backend)(nil)

// Get implements cas.Backend. A read of an entity sees every write before it.
func (b *backend) Get(ctx context.Context, key string) (cas.Item, error) {
	e, err := b.get(ctx, key)
	return e.item, err
}

func (b *backend) get(ctx context.Context, key string) (entity, error) {
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	partition, row := keysOf(key)
	got, err := b.client.GetEntity(within, partition, row, &aztables.GetEntityOptions{Format: to.Ptr(aztables.MetadataFormatNone)})
	if isCode(err, aztables.ResourceNotFound, aztables.EntityNotFound) {
		return entity{}, nil
	}
	if err != nil {
		return entity{}, b.classify(ctx, "read", err)
	}
	return decode(got.Value, string(got.ETag))
}

// Create implements cas.Backend.
func (b *backend) Create(ctx context.Context, key string, value []byte) (cas.Item, bool, error) {
	w, err := newWrite(key, "", value)
	if err != nil {
		return cas.Item{}, false, err
	}
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	got, err := b.client.AddEntity(within, w.body, &aztables.AddEntityOptions{Format: to.Ptr(aztables.MetadataFormatNone)})
	switch {
	case isCode(err, aztables.EntityAlreadyExists):
		return b.now(ctx, w)
	case err != nil:
		return cas.Item{}, false, b.classify(ctx, "add", err)
	}
	return w.done(string(got.ETag))
}

// Swap implements cas.Backend.
func (b *backend) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	if value == nil {
		return b.remove(ctx, key, version)
	}
	w, err := newWrite(key, version, value)
	if err != nil {
		return cas.Item{}, false, err
	}
	return b.replace(ctx, w)
}

// write is an entity to write.
type write struct {
	id      string
	key     string
	version string // that it replaces
	value   []byte
	body    []byte
}

func newWrite(key, version string, value []byte) (*write, error) {
	w := &write{id: rand.Text(), key: key, version: version, value: value}
	var err error
	w.body, err = encode(key, w.id, value)
	return w, err
}

// done returns what a write that succeeded left.
func (w *write) done(etag string) (cas.Item, bool, error) {
	if etag == "" {
		return cas.Item{}, false, fmt.Errorf("tablereplay: %w", errNoETag)
	}
	return cas.Item{Key: w.key, Version: etag, Value: w.value}, true, nil
}

// now returns what is there in place of a write that failed. The SDK repeats a request
// whose answer was lost, and then its condition fails because of the first one.
func (b *backend) now(ctx context.Context, w *write) (cas.Item, bool, error) {
	e, err := b.get(ctx, w.key)
	return e.item, err == nil && e.write == w.id, err
}

func (b *backend) replace(ctx context.Context, w *write) (cas.Item, bool, error) {
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	got, err := b.client.UpdateEntity(within, w.body, &aztables.UpdateEntityOptions{
		IfMatch: to.Ptr(azcore.ETag(w.version)), UpdateMode: aztables.UpdateModeReplace,
	})
	switch {
	case isConflict(err):
		return b.now(ctx, w)
	case err != nil:
		return cas.Item{}, false, b.classify(ctx, "update", err)
	}
	return w.done(string(got.ETag))
}

func (b *backend) remove(ctx context.Context, key, version string) (cas.Item, bool, error) {
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	partition, row := keysOf(key)
	_, err := b.client.DeleteEntity(within, partition, row, &aztables.DeleteEntityOptions{IfMatch: to.Ptr(azcore.ETag(version))})
	switch {
	case isConflict(err):
		e, err := b.get(ctx, key)
		return e.item, false, err
	case err != nil:
		return cas.Item{}, false, b.classify(ctx, "delete", err)
	}
	return cas.Item{}, true, nil
}

// Scan implements cas.Backend.
func (b *backend) Scan(ctx context.Context, prefix string) iter.Seq2[cas.Item, error] {
	partition, rest := cas.SplitKey(prefix)
	filter := fmt.Sprintf("PartitionKey eq '%s'", partition)
	switch {
	case strings.Count(partition, ".") < 3: // of several partitions
		filter = between("PartitionKey", partition)
	case rest != "":
		filter += " and " + between("RowKey", rest)
	}
	return func(yield func(cas.Item, error) bool) {
		pages := b.client.NewListEntitiesPager(&aztables.ListEntitiesOptions{Filter: &filter, Format: to.Ptr(aztables.MetadataFormatFull)})
		for pages.More() {
			within, cancel := context.WithTimeout(ctx, callTime)
			page, err := pages.NextPage(within)
			cancel()
			if err != nil {
				yield(cas.Item{}, b.classify(ctx, "list", err))
				return
			}
			for _, data := range page.Entities {
				e, err := decode(data, "")
				if !yield(e.item, err) || err != nil {
					return
				}
			}
		}
	}
}

// between is the filter for keys that begin with a prefix, which holds no quote
// (cas.Item).
func between(name, prefix string) string {
	last := len(prefix) - 1
	return fmt.Sprintf("%s ge '%s' and %s lt '%s%c'", name, prefix, name, prefix[:last], prefix[last]+1)
}
