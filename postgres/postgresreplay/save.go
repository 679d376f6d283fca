package postgresreplay

import (
	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// changes collects what a call writes, in the order in which the statements run.
type changes struct {
	early       pgx.Batch // of single rows: streams that go or stay
	heads       pgx.Batch // senders and streams that are new, heads that have changed
	pages       pageChanges
	completions completionChanges
	tallies     tallyChanges
}

type pageChanges struct {
	streams, places, due    []int64
	bodies                  [][]byte
	goneStreams, gonePlaces []int64
}

type completionChanges struct {
	senders, streams [][]byte
	sequences        []int64
}

func (x *completionChanges) add(c *replaystate.Completion) {
	x.senders, x.streams = append(x.senders, []byte(c.Key.Sender)), append(x.streams, c.Key.Stream[:])
	x.sequences = append(x.sequences, int64(c.Sequence)) //nolint:gosec // G115: below 2^53
}

type tallyChanges struct {
	oldSenders, oldVersions                                          []int64
	senders, versions, records, recents, streams, intervals, lastIDs []int64
	states                                                           [][]byte
}

// add replaces the row of a sender, or of the group if sender is 0.
func (x *tallyChanges) add(sender int64, c *counted, version, lastID int64, state []byte) {
	if c.version > 0 {
		x.oldSenders, x.oldVersions = append(x.oldSenders, sender), append(x.oldVersions, c.version)
	}
	n := c.sum()
	x.senders, x.versions = append(x.senders, sender), append(x.versions, version)
	x.records, x.recents = append(x.records, n.Records), append(x.recents, n.Recents)
	x.streams, x.intervals = append(x.streams, n.Streams), append(x.intervals, n.Intervals)
	x.lastIDs, x.states = append(x.lastIDs, lastID), append(x.states, state)
}

// commit writes what the call has changed, and commits. One round trip.
func (l *call) commit() {
	if l.err != nil {
		return
	}
	for _, s := range l.streams {
		l.saveStream(s)
	}
	version := l.group.version + 1
	for name, s := range l.senders {
		if s.fresh {
			l.changes.heads.Queue(l.e.sql(insertSender), l.group.id, s.id, []byte(name))
		}
		if s.fresh || s.id != 0 && s.added != (replaystate.Counts{}) {
			l.changes.tallies.add(s.id, &s.counted, version, 0, []byte{})
		}
	}
	// Also if nothing else has changed: the change number grows.
	l.changes.tallies.add(0, &l.group.counted, version, l.group.lastID, replaystate.AppendGroup(nil, &l.group.state))
	if l.err != nil {
		return
	}
	// A commit that is under way is not given up: its end is what the answer is about.
	r := l.c.SendBatch(l.ctx, l.batch())
	err := r.Close()
	if !l.fail(err) {
		l.committed = true
		l.stamp.Change++
		l.e.remember(l.name, remembered{stamp: l.stamp, run: l.run.now, version: version})
	}
}

// batch returns the statements of all changes.
func (l *call) batch() *pgx.Batch {
	x, group := &l.changes, l.group.id
	b := &pgx.Batch{}
	b.QueuedQueries = append(append(b.QueuedQueries, x.early.QueuedQueries...), x.heads.QueuedQueries...)
	if p := &x.pages; len(p.streams) > 0 {
		b.Queue(l.e.sql(upsertPages), group, p.streams, p.places, p.due, p.bodies)
	}
	if p := &x.pages; len(p.goneStreams) > 0 {
		b.Queue(l.e.sql(deletePages), group, p.goneStreams, p.gonePlaces)
	}
	if c := &x.completions; len(c.sequences) > 0 {
		b.Queue(l.e.sql(deleteCompletions), group, c.senders, c.streams, c.sequences)
	}
	t := &x.tallies
	if len(t.oldSenders) > 0 {
		b.Queue(l.e.sql(deleteTallies), group, t.oldSenders, t.oldVersions)
	}
	b.Queue(l.e.sql(insertTallies), group, t.senders, t.versions, t.records, t.recents, t.streams, t.intervals, t.lastIDs, t.states)
	b.Queue(`COMMIT`)
	return b
}

func (l *call) saveStream(s *streamRow) {
	if !s.held || l.err != nil {
		return
	}
	l.at = s
	l.count()
	if s.head != nil && (s.head.Dirty || s.id == 0) {
		l.saveHead(s)
	}
	x := &l.changes.pages
	for index, p := range s.pages {
		place := int64(index) //nolint:gosec // G115: below 2^53
		switch {
		case p.deleted:
			x.goneStreams, x.gonePlaces = append(x.goneStreams, s.id), append(x.gonePlaces, place)
		case p.page != nil && (p.page.Dirty || p.page.New):
			x.streams, x.places = append(x.streams, s.id), append(x.places, place)
			x.due, x.bodies = append(x.due, p.page.Turn(l.env.Now)), append(x.bodies, replaystate.AppendPage(nil, p.page))
		}
	}
}

func (l *call) saveHead(s *streamRow) {
	if n := len(s.head.Intervals) - s.intervals; n != 0 {
		l.countStream(s, replaystate.Counts{Intervals: int64(n)})
		s.intervals = len(s.head.Intervals)
	}
	body := replaystate.AppendHead(nil, s.head)
	if s.id != 0 {
		l.changes.heads.Queue(l.e.sql(updateHead), l.group.id, s.id, s.head.Newest, body)
		return
	}
	if s.sender.id == 0 {
		s.sender.id, s.sender.fresh = l.nextID(), true
	}
	s.id = l.nextID()
	l.changes.heads.Queue(l.e.sql(insertStream), l.group.id, s.id, s.sender.id, s.key.Stream[:], s.head.Newest, body)
}

// exec notes a statement about one row.
func (l *call) exec(statement string, args ...any) {
	l.changes.early.Queue(l.e.sql(statement), args...)
}
