package replaystate

import (
	"context"
	"iter"
)

// Engine is a store in the terms of this package. Package replay makes a
// replay.Store of it: it checks what callers pass and translates the answers.
//
// Each call answers every item, in order, or fails as a whole; then any part of
// it may have happened.
type Engine interface {
	Begin(ctx context.Context, group string, r []Request) ([]Claim, Stamp, error)
	Renew(ctx context.Context, group string, l []Lease) ([]Outcome, Stamp, error)
	Finish(ctx context.Context, group string, f []Finish) ([]Outcome, Stamp, error)
	Look(ctx context.Context, group string, q []Query) ([]Look, Stamp, error)
	// Note answers for how many sequences each note says something new.
	Note(ctx context.Context, group string, n []Note) ([]uint64, Stamp, error)
	Streams(ctx context.Context, group string) iter.Seq2[Entry, error]
	// Probe writes, and answers Done or Full.
	Probe(ctx context.Context, group string) (Outcome, error)
	Stats(ctx context.Context) (Stats, error)
	// Group returns the state of a group.
	Group(ctx context.Context, group string) (Group, error)
	// Change changes the known keys of a group; do may run more than once.
	Change(ctx context.Context, group string, do func(*Group)) error
	History(ctx context.Context) (History, error)
	// Accept is History.Accept on what is stored.
	Accept(ctx context.Context, lost Stamp) (Loss, error)
}

// Stamp says which memory answered.
type Stamp struct {
	ID     [16]byte
	Birth  int64
	Change uint64
}

// Entry is a stream with its account.
type Entry struct {
	Key     Key
	Account Account
}

// Stats is what a store holds.
type Stats struct {
	Stamp           Stamp
	Counts          Counts
	Bytes           int64
	Limits          Limits
	Shared, Durable bool
}

// Counts counts what is held.
type Counts struct{ Records, Recents, Streams, Intervals int64 }

// Add adds a difference.
func (c *Counts) Add(d Counts) {
	c.Records += d.Records
	c.Recents += d.Recents
	c.Streams += d.Streams
	c.Intervals += d.Intervals
}

// Sub returns c - d.
func (c Counts) Sub(d Counts) Counts {
	return Counts{c.Records - d.Records, c.Recents - d.Recents, c.Streams - d.Streams, c.Intervals - d.Intervals}
}

// Bound bounds what a store, a group or a sender of a group holds.
type Bound struct{ Records, Streams, Intervals int64 }

// full reports whether there is no room for one more record.
func (q Bound) full(c Counts) bool { return c.Records >= q.Records || c.Intervals >= q.Intervals }

// reached reports whether there is no room for one more record, or, if stream is set,
// for one more record and one more stream.
func (q Bound) reached(c Counts, stream bool) bool {
	return q.full(c) || stream && c.Streams >= q.Streams
}

// Tight reports whether old streams should make room.
func (q Bound) Tight(c Counts) bool { return c.Streams >= q.Streams || c.Intervals >= q.Intervals }

// Limits are the bounds of a store.
type Limits struct {
	Store, Group, Sender Bound
	Recents              int64
	// KeepStream and ParkedTTL are durations in milliseconds.
	KeepStream, ParkedTTL int64
}

// Room says whether one more record fits, and one more stream if asked.
func (l *Limits) Room(store, group, sender Counts, stream bool) Outcome {
	switch {
	case l.Sender.reached(sender, stream):
		return Quota
	case l.Group.reached(group, stream), l.Store.reached(store, stream):
		return Full
	}
	return 0
}

// Open says whether the store and the group take another record, of any sender.
func (l *Limits) Open(store, group Counts) Outcome {
	if l.Group.full(group) || l.Store.full(store) {
		return Full
	}
	return Done
}

// Keep is for how long a stream is kept, and in need of room for how long it has
// to be.
func (l *Limits) Keep(g *Group, tight bool) int64 {
	if tight {
		return g.Reach
	}
	return max(l.KeepStream, g.Reach)
}
