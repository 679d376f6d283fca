// Package cas makes a replay.Store of any storage that can read an item, create it
// if it is absent, replace it if its version is still the one that was read, and list
// items by prefix. A new backend is some 50 lines.
//
// # Layout
//
// An item is a page of up to 1,024 sequences of a stream, the head of a stream (what
// was folded out of its pages), a group, or the store itself.
//
// A Store remembers the versions that it saw last. A call makes one request for each
// page of its messages, in parallel, or one for all pages if the backend is a [Batcher].
// If another receiver changed a page meanwhile, it is written again, up to MaxTries times
// with growing random waits. At the end of such a call the item of the store is read:
// the store may have lost its memory, and others have filled it again.
//
// The first message of a page takes six requests more, one after the other, and
// the first of a stream two more. A message whose Previous lies in another page
// reads that page, too.
//
// # Claims without a clock
//
// The storage has no clock that all receivers share. A claim is taken over only
// after some Store saw it unchanged for a whole lease, on its own monotonic clock. The
// first Store that was asked for the message writes the end of that lease into the page.
// A receiver in any process that asks after Claim.BusyUntil gets the claim, so that a
// crash costs one delivery. Renew changes the claim, so that the lease counts anew.
//
// A Store remembers each claim that it has met, in some 200 bytes: until the end of its
// lease is written, or until the Streams of its group were listed and it was gone.
//
// # What keeps it right
//
// The order of writes. A page is folded by retiring it, writing the head, then removing that
// version of the page, if the head is as it was before the page was retired. A receiver that needs
// a new page reserves its place first, reads the head afterwards, and writes it before the page,
// also if nothing in it changes; and so does one that uses a retired page. So what was folded
// before is in the head, what comes later has to pass the place, and no head that a sweep writes
// is wrong about which pages are in use. If a process dies in between, the next sweep goes on.
// A stream is dropped, after its head was read and no page found, by writing the group's mark,
// then removing the head; a receiver that finds no head reads the group afterwards.
//
// # Limits
//
// Quotas are judged by what the last sweep counted and this Store added since, so
// several processes may exceed them by what each adds between sweeps. The change
// number grows at most once in Options.ChangeInterval for each Store.
package cas

import (
	"context"
	"iter"
	"strings"
)

// Item is what a backend stores.
type Item struct {
	// Key is at most 1,000 bytes of letters, digits, '.', '-' and '_'. See SplitKey.
	Key string
	// Version is another one after each write of the key, also after the item
	// was removed and created again. Empty means that nothing is there.
	Version string
	// Value is at most 350 KiB; 3 KiB typically.
	Value []byte
}

// Backend stores items. It is safe for concurrent use by several processes, and
// linearizable for each key: a call that starts after another has returned sees
// its effect. Scan may miss items that are created meanwhile. An error means that
// the write may have happened or not.
type Backend interface {
	// Get returns an item; the zero Item if none is there.
	Get(ctx context.Context, key string) (Item, error)

	// Create stores an item if none is there. It returns the item as it is now:
	// the new one, or the one that was there.
	Create(ctx context.Context, key string, value []byte) (current Item, created bool, err error)

	// Swap replaces the value if the version is still the one given; a nil
	// value removes the item. It returns the item as it is now; the zero Item
	// means that none is there.
	Swap(ctx context.Context, key, version string, value []byte) (current Item, swapped bool, err error)

	// Scan iterates over the items whose keys begin with prefix, in any order.
	// It ends after an error.
	Scan(ctx context.Context, prefix string) iter.Seq2[Item, error]
}

// Change is one Swap of several.
type Change struct {
	Key, Version string
	Value        []byte // never nil
}

// Changed answers a Change as Swap does.
type Changed struct {
	Current Item
	Swapped bool
}

// Batcher is a Backend that replaces several items in one request.
type Batcher interface {
	Backend

	// SwapAll makes each change as Swap does, in one request if nothing
	// hinders it. One change may fail while others are made. All keys are
	// different and have the same partition. An error means that any part may
	// have happened.
	SwapAll(ctx context.Context, changes []Change) ([]Changed, error)
}

// SplitKey splits a key, or the prefix of a Scan, behind its third dot. All pages
// of a group have the same partition, and all of its heads. A rest is at most 150
// bytes. A prefix that has no third dot is the prefix of several partitions: it has no
// rest.
func SplitKey(key string) (partition, rest string) {
	from := 0
	for range 3 {
		dot := strings.IndexByte(key[from:], '.')
		if dot < 0 {
			return key, ""
		}
		from += dot + 1
	}
	return key[:from], key[from:]
}
