package sqlitereplay

import (
	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

const (
	// A call that writes sweeps if sweepCalls others have gone by since the
	// last one that did, or sweepTime milliseconds.
	sweepCalls = 8
	sweepTime  = 1000
	// pageSteps and streamSteps are how many pages and streams one sweep looks
	// at. A call adds at most a page and a stream for each item, most add none,
	// and a sweep that finds more than it takes is followed by the next.
	pageSteps   = 64
	streamSteps = 64
)

// crowded reports whether more recent messages are kept than should be.
func (l *call) crowded() bool { return l.cache.store.Recents > l.e.limits.Recents }

// sweep folds the pages of the group that are due, the oldest of them early if too
// many recent messages are kept, and drops old streams of one sender.
func (l *call) sweep(items int) {
	type place struct {
		index uint64
		key   replaystate.Key
	}
	var places []place
	until, limit := l.env.Now, int64(pageSteps)
	if l.crowded() {
		// A message is two items and leaves one recent entry: this is four times as
		// fast as they grow, if each has a page of its own.
		until, limit = replaystate.Untagged-1, min(2*int64(items), pageSteps)
	}
	for _, due := range [...]struct{ from, until, limit int64 }{
		{0, until, limit}, {replaystate.Untagged, replaystate.Untagged + l.env.Now, pageSteps},
	} {
		l.fail(l.c.Query(duePages, func(r sqlitefile.Row) error {
			p := place{index: uint64(r.Int(0)), key: replaystate.Key{Sender: r.Text(1)}} //nolint:gosec // G115: written from one
			copy(p.key.Stream[:], r.Bytes(2))
			places = append(places, p)
			return nil
		}, l.group.id, due.from, due.until, due.limit))
	}
	for _, p := range places {
		l.open(p.key)
		l.settle(p.index, until > l.env.Now)
		if l.err != nil {
			return
		}
	}
	l.dropNext()
}

// settle expires records of a page, and folds it if its time has come or if force
// is set.
func (l *call) settle(index uint64, force bool) {
	p, h := l.Page(index), l.Head()
	if p == nil || h == nil {
		return
	}
	if h.Settle(p, l.env.Now, l.group.state.Time(l.env.Now), l.e.limits.Keep(&l.group.state, l.tight(l.at.sender)), force) {
		l.page(index).page = nil
	}
	l.count()
}

// dropNext drops old streams of the next sender of the group.
func (l *call) dropNext() {
	var name string
	_, err := l.c.One(nextSender, func(r sqlitefile.Row) error {
		name = r.Text(0)
		return nil
	}, l.group.id, l.e.sender)
	if l.fail(err) {
		return
	}
	l.e.sender = name // behind the last one comes the one without a name
	l.dropOld(name)
}

// makeRoom drops old streams of the sender of the item at hand if it has used up
// its quota.
func (l *call) makeRoom() {
	s := l.at.sender
	if l.err == nil && s.id != 0 && l.e.limits.Sender.Tight(s.total()) {
		key := l.at.key
		l.dropOld(key.Sender)
		l.open(key)
	}
}

// tight reports whether what is old should make room: then it is kept no longer
// than any receiver of the group can need it.
func (l *call) tight(s *senderRow) bool {
	return l.e.limits.Sender.Tight(s.total()) || l.e.limits.Group.Tight(l.grouped()) || l.e.limits.Store.Tight(l.stored())
}

// dropOld drops streams of a sender that are past their time and have no pages,
// and raises the group's mark for each.
func (l *call) dropOld(name string) {
	s := l.sender(name)
	before := l.group.state.Time(l.env.Now) - l.e.limits.Keep(&l.group.state, l.tight(s))
	type old struct {
		id     int64
		stream [16]byte
		pages  bool
	}
	var all []old
	l.fail(l.c.Query(oldStreams, func(r sqlitefile.Row) error {
		o := old{id: r.Int(0), pages: r.Int(2) != 0}
		copy(o.stream[:], r.Bytes(1))
		all = append(all, o)
		return nil
	}, s.id, before, int64(streamSteps)))
	for _, o := range all {
		key := replaystate.Key{Sender: name, Stream: o.stream}
		if s := l.group.streams[key]; s != nil && s.used || l.err != nil {
			continue // this call uses it
		}
		if o.pages {
			// Look again in an hour of the group's time.
			l.exec(keepStream, o.id, before+3_600_000)
			continue
		}
		l.drop(key)
	}
}

func (l *call) drop(key replaystate.Key) {
	l.open(key)
	s := l.at
	h := l.Head()
	if h == nil {
		return
	}
	l.group.state.Mark = max(l.group.state.Mark, h.Newest, h.Mark)
	l.group.state.Dirty = true
	l.countStream(s, replaystate.Counts{Streams: -1, Intervals: -int64(s.intervals)})
	l.exec(deleteStream, s.id)
	s.held = false
	delete(l.group.streams, key)
	l.cache.size -= 1 + len(s.pages)
}
