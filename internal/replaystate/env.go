package replaystate

// Group is what all streams of a group share.
type Group struct {
	// Mark is the newest SealedAt of a stream that was dropped. It judges the
	// messages of streams that are not held.
	Mark int64
	// Newest is the newest SealedAt that the group consumed, or refused for lack of room,
	// to within a second below it. Without the refused a group that is full of young
	// streams would stay so for ever.
	Newest int64
	// Reach and Skew are the largest that a Request ever asked for.
	Reach, Skew int64
	// Keys have opened messages, in the order in which they were noted.
	Keys []KnownKey
	// Dirty: changed since it was loaded.
	Dirty bool
}

// Ask takes over the reach and the skew of a Request.
func (g *Group) Ask(reach, skew int64) {
	if reach > g.Reach || skew > g.Skew {
		g.Reach, g.Skew, g.Dirty = max(g.Reach, reach), max(g.Skew, skew), true
	}
}

// newestStep is by how much Newest grows at least, so that a group does not
// change with each message. A Newest that is too low only keeps streams longer.
const newestStep = 1000

func (g *Group) advance(sealedAt int64) {
	if sealedAt >= g.Newest+newestStep {
		g.Newest, g.Dirty = sealedAt, true
	}
}

// Time is what retention is measured against: the earlier of the store's clock
// and Newest. A clock that jumps ahead drops nothing.
func (g *Group) Time(now int64) int64 { return min(now, g.Newest) }

// Env is what the functions of this package know besides the stream.
type Env struct {
	// Now is the store's clock.
	Now int64
	// Birth is when the store was made.
	Birth int64
	Group *Group
	// Span is the number of sequences of a page.
	Span int
	// ParkedTTL is how long a parked record is kept.
	ParkedTTL int64
	// Room says whether one more record fits, and one more stream if asked: 0,
	// Full or Quota.
	Room func(k Key, stream bool) Outcome
	// Live says until when a claim is live, and whether it is now. Nil means
	// that Now tells: the store has a clock.
	Live func(c Observed) (until int64, live bool)
}

// Observed identifies one state of a claim: if it is the same again, its owner
// did nothing meanwhile.
type Observed struct {
	Key      Key
	Sequence uint64
	Token    [16]byte
	Beat     uint32
	// Lease is how long the claim lives from its last change, at Changed.
	Lease, Changed int64
}

// Stream is what a store has loaded of one stream. A store whose loading fails
// returns nil and remembers the failure: it must then save nothing.
type Stream interface {
	// Head returns nil if the stream is not held.
	Head() *Head
	// Page returns nil if there is none.
	Page(index uint64) *Page
	// Add adds a page and, if the stream is not held, its head.
	Add(h *Head, p *Page)
}

// live says until when the claim of a record is live, and whether it is now.
func (e *Env) live(k Key, p *Page, r *record) (until int64, live bool) {
	if e.Live != nil {
		return e.Live(Observed{k, p.first() + uint64(r.offset), r.token, r.beat, r.lease, r.changed})
	}
	until = r.changed + r.lease
	return until, e.Now < until
}
