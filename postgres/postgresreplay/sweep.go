package postgresreplay

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/internal/replaystate"
)

const (
	// sweepEvery is how often this process sweeps a group that it works for.
	sweepEvery = time.Second
	// pageSteps, streamSteps and completionSteps are how much one sweep looks at, which
	// bounds how long the group is locked. Pages and streams come more slowly: a full
	// page is 128 messages.
	pageSteps       = 64
	streamSteps     = 64
	completionSteps = 256
)

// sweepDue reports whether this process is to sweep a group now.
func (e *engine) sweepDue(group string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.swept[group]
	if !s.at.IsZero() && time.Since(s.at) < sweepEvery {
		return false
	}
	s.at = time.Now()
	e.swept[group] = s
	return true
}

// crowded reports whether more recent messages are kept than should be.
func (l *call) crowded() bool { return l.total().Recents > l.e.limits.Recents }

// sweep takes over completions that no call has met, folds the pages of the group that
// are due, the oldest of them early if too many recent messages are kept, and drops old
// streams of one sender.
func (l *call) sweep() {
	l.sweepCompletions()
	until, limit := l.env.Now, int64(pageSteps)
	force := l.crowded()
	if force {
		until, limit = replaystate.Untagged-1, 8
	}
	var places []pageKey
	l.query(duePages, func(r pgx.Rows) error {
		var place int64
		var name, stream []byte
		if err := r.Scan(&place, &name, &stream); err != nil {
			return err
		}
		p := pageKey{replaystate.Key{Sender: string(name)}, uint64(place)} //nolint:gosec // G115: written from one
		copy(p.key.Stream[:], stream)
		places = append(places, p)
		return nil
	}, l.group.id, until, limit, int64(replaystate.Untagged), replaystate.Untagged+l.env.Now)
	if len(places) > 0 {
		l.loadPages(places, withHeads)
	}
	for _, p := range places {
		l.open(p.key)
		l.settle(p.place, force)
		if l.err != nil {
			return
		}
	}
	l.dropNext()
}

// sweepCompletions takes over what the first round trip has not brought.
func (l *call) sweepCompletions() {
	met := make(map[replaystate.Completion]struct{}, len(l.completions))
	for _, c := range l.completions {
		met[c] = struct{}{}
	}
	l.completions = nil
	l.query(anyCompletions, l.scanCompletion, l.group.id, int64(completionSteps))
	var rest []replaystate.Completion
	var k pageKeys
	for _, c := range l.completions {
		if _, ok := met[c]; !ok {
			rest = append(rest, c)
			k.add(c.Key, c.Sequence)
		}
	}
	if len(rest) > 0 {
		l.loadPages(k.list, pagesAlone)
		l.takeOver(rest)
	}
}

// settle expires records of a page, and folds it if its time has come or if force is
// set.
func (l *call) settle(index uint64, force bool) {
	p, h := l.Page(index), l.Head()
	if p == nil || h == nil {
		return
	}
	empty := h.Settle(p, l.env.Now, l.group.state.Time(l.env.Now), l.e.limits.Keep(&l.group.state, l.tight(l.at.sender)), force)
	l.count()
	if empty {
		l.at.pages[index] = &pageRow{deleted: true}
	}
}

// dropNext drops old streams of the next sender of the group.
func (l *call) dropNext() {
	e := l.e
	e.mu.Lock()
	last := e.swept[l.name].sender
	e.mu.Unlock()
	var id int64
	var name []byte
	l.query(nextSender, func(r pgx.Rows) error { return r.Scan(&id, &name) }, l.group.id, last)
	if id == 0 && last != 0 { // from the start again
		l.query(nextSender, func(r pgx.Rows) error { return r.Scan(&id, &name) }, l.group.id, int64(0))
	}
	if l.err != nil {
		return
	}
	e.mu.Lock()
	s := e.swept[l.name]
	s.sender = id
	e.swept[l.name] = s
	e.mu.Unlock()
	if id != 0 {
		l.loadSender(string(name))
		l.dropOld(string(name), streamSteps)
	}
}

// loadSender loads the row of a sender unless the call has.
func (l *call) loadSender(name string) {
	if s := l.senders[name]; s == nil || s.id == 0 && !s.fresh {
		l.query(selectSenders, l.scanSender, []byte(l.name), [][]byte{[]byte(name)})
	}
}

// makeRoom drops old streams of the sender of the item at hand, once in a call of so
// many items, if it has used up its quota.
func (l *call) makeRoom(items int) {
	s := l.at.sender
	if l.err == nil && s.id != 0 && !s.fresh && !s.roomMade && l.e.limits.Sender.Tight(s.sum()) {
		s.roomMade = true
		key := l.at.key
		l.dropOld(key.Sender, max(streamSteps, int64(items)))
		l.open(key)
	}
}

// tight reports whether what is old should make room: then it is kept no longer than
// any receiver of the group can need it.
func (l *call) tight(s *senderRow) bool {
	return l.e.limits.Sender.Tight(s.sum()) || l.e.limits.Group.Tight(l.group.sum()) || l.e.limits.Store.Tight(l.total())
}

// dropOld drops streams of a sender that are past their time and have no pages, and
// raises the group's mark for each.
func (l *call) dropOld(name string, limit int64) {
	s := l.sender(name)
	before := l.group.state.Time(l.env.Now) - l.e.limits.Keep(&l.group.state, l.tight(s))
	type old struct {
		id     int64
		stream [16]byte
		pages  bool
	}
	var all []old
	l.query(oldStreams, func(r pgx.Rows) error {
		var o old
		var stream []byte
		if err := r.Scan(&o.id, &stream, &o.pages); err != nil {
			return err
		}
		copy(o.stream[:], stream)
		all = append(all, o)
		return nil
	}, l.group.id, s.id, before, limit)
	for _, o := range all {
		key := replaystate.Key{Sender: name, Stream: o.stream}
		if s := l.streams[key]; s != nil && s.used() || l.err != nil {
			continue
		}
		if o.pages {
			// Look again in an hour of the group's time.
			l.exec(keepStream, l.group.id, o.id, before+3_600_000)
			continue
		}
		l.drop(key)
	}
}

// used reports whether the call has changed a stream that it has loaded, or dropped it, or
// has found pages of it.
func (s *streamRow) used() bool {
	used := !s.held || s.id == 0 || s.head != nil && s.head.Dirty
	for _, p := range s.pages {
		used = used || p.page != nil || p.deleted
	}
	return used
}

// drop removes a stream. Its row stays in the call as one that is not held.
func (l *call) drop(key replaystate.Key) {
	l.open(key)
	s := l.at
	h := l.Head()
	if h == nil {
		return
	}
	l.group.state.Mark = max(l.group.state.Mark, h.Newest, h.Mark)
	l.countStream(s, replaystate.Counts{Streams: -1, Intervals: -int64(s.intervals)})
	l.exec(deleteStream, l.group.id, s.id)
	*s = streamRow{key: key, sender: s.sender, pages: make(map[uint64]*pageRow)}
}
