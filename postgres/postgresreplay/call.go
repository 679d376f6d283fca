package postgresreplay

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
)

// call is what one transaction has loaded. It is the replaystate.Stream of the item at
// hand. After a failure it loads nothing more, and saves nothing.
type call struct {
	ctx       context.Context //nolint:containedctx // of this one call, for loading while it computes
	e         *engine
	c         *conn
	name      string // of the group
	write     bool
	committed bool
	err       error
	env       replaystate.Env
	stamp     replaystate.Stamp

	others      replaystate.Counts // of the other groups
	group       groupRow
	run         runRow
	known       remembered // when the call began
	senders     map[string]*senderRow
	streams     map[replaystate.Key]*streamRow
	at          *streamRow // the stream of the item at hand
	completions []replaystate.Completion
	changes     changes
}

// counted is what is counted of a group or a sender: as stored, and by this call.
type counted struct {
	version       int64
	stored, added replaystate.Counts
}

func (c *counted) sum() replaystate.Counts { n := c.stored; n.Add(c.added); return n }

type groupRow struct {
	counted
	id     int64 // 0: not stored yet
	lastID int64
	state  replaystate.Group
}

type senderRow struct {
	counted
	id       int64 // 0: not stored yet
	fresh    bool  // made by this call
	roomMade bool  // its old streams were looked at
}

type streamRow struct {
	id        int64 // 0: not stored yet
	key       replaystate.Key
	sender    *senderRow
	held      bool
	head      *replaystate.Head // nil until it is needed
	intervals int               // that are stored
	pages     map[uint64]*pageRow
}

// pageRow is a page and what is stored of it.
type pageRow struct {
	page    *replaystate.Page // nil: there is none
	records int
	recents int
	deleted bool
}

func newCall(ctx context.Context, e *engine, c *conn, group string) *call {
	return &call{
		ctx: ctx, e: e, c: c, name: group, known: e.recall(group),
		senders: make(map[string]*senderRow, 1), streams: make(map[replaystate.Key]*streamRow, 1),
	}
}

// fail remembers the first failure. It reports whether there is one.
func (l *call) fail(err error) bool {
	if l.err == nil {
		l.err = err
	}
	return l.err != nil
}

// corrupt is fail for what was decoded.
func (l *call) corrupt(err error) bool {
	if err != nil {
		err = driver.Errorf(driver.Corrupt, "%w", err)
	}
	return l.fail(err)
}

// query reads rows at once: what the first round trip has not brought.
func (l *call) query(statement string, each func(pgx.Rows) error, args ...any) {
	if l.err != nil {
		return
	}
	r, err := l.c.Query(l.ctx, l.e.sql(statement), args...)
	l.fail(rows(r, err, each))
}

// open makes a stream the one at hand, and loads it unless the call has.
func (l *call) open(k replaystate.Key) {
	if l.at = l.streams[k]; l.at != nil {
		return
	}
	l.loadPages([]pageKey{{k, 0}}, pagesAlone)
	if l.at = l.streams[k]; l.at == nil {
		l.at = l.stream(k) // loading failed
	}
}

// stream returns the row of a stream, and makes one that is not held if there is none.
func (l *call) stream(k replaystate.Key) *streamRow {
	s := l.streams[k]
	if s == nil {
		s = &streamRow{key: k, sender: l.sender(k.Sender), pages: make(map[uint64]*pageRow, 1)}
		l.streams[k] = s
	}
	return s
}

func (l *call) sender(name string) *senderRow {
	s := l.senders[name]
	if s == nil {
		s = &senderRow{}
		l.senders[name] = s
	}
	return s
}

// nextID gives a number to a sender or a stream.
func (l *call) nextID() int64 {
	l.group.lastID++
	return l.group.lastID
}

// total counts what the store holds.
func (l *call) total() replaystate.Counts { n := l.others; n.Add(l.group.sum()); return n }

// room says whether one more record fits, and one more stream if asked.
func (l *call) room(_ replaystate.Key, stream bool) replaystate.Outcome {
	l.count() // what the items before have added
	return l.e.limits.Room(l.total(), l.group.sum(), l.at.sender.sum(), stream)
}

// Head implements replaystate.Stream.
func (l *call) Head() *replaystate.Head {
	s := l.at
	if !s.held || s.head != nil {
		return s.head
	}
	l.query(selectHead, func(r pgx.Rows) error {
		var head []byte
		if err := r.Scan(&head); err != nil {
			return err
		}
		l.setHead(s, head)
		return nil
	}, l.group.id, s.id)
	return s.head
}

func (l *call) setHead(s *streamRow, head []byte) {
	h, err := replaystate.DecodeHead(head)
	if !l.corrupt(err) {
		s.head, s.intervals = h, len(h.Intervals)
	}
}

// Page implements replaystate.Stream.
func (l *call) Page(index uint64) *replaystate.Page {
	s := l.at
	if p := s.pages[index]; p != nil {
		return p.page
	}
	if !s.held || l.err != nil {
		return nil
	}
	if s.id != 0 {
		l.loadPages([]pageKey{{s.key, index}}, pagesAlone)
	}
	if p := s.pages[index]; p != nil {
		return p.page
	}
	return nil
}

// Add implements replaystate.Stream.
func (l *call) Add(h *replaystate.Head, p *replaystate.Page) {
	s := l.at
	if !s.held {
		s.held = true
		l.countStream(s, replaystate.Counts{Streams: 1})
	}
	s.head = h
	s.pages[p.Index] = &pageRow{page: p}
}

// count adds up what the pages of the item at hand have changed.
func (l *call) count() {
	for _, p := range l.at.pages {
		if p.page == nil {
			continue
		}
		l.countStream(l.at, replaystate.Counts{Records: int64(p.page.Records() - p.records), Recents: int64(p.page.Recents() - p.recents)})
		p.records, p.recents = p.page.Records(), p.page.Recents()
	}
}

func (l *call) countStream(s *streamRow, d replaystate.Counts) {
	l.group.added.Add(d)
	s.sender.added.Add(d)
}

// takeOver enters what transactions of applications have consumed.
func (l *call) takeOver(all []replaystate.Completion) {
	for i := range all {
		if l.err != nil {
			return
		}
		c := &all[i]
		l.open(c.Key)
		replaystate.Complete(&l.env, l, c)
		l.count()
		l.changes.completions.add(c)
	}
}

var _ replaystate.Stream = (*call)(nil)
