package sqlitereplay

import (
	"errors"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// call is what one transaction has loaded. It is the replaystate.Stream of the
// item at hand. After a failure it loads nothing more, and saves nothing.
type call struct {
	e     *engine
	c     *sqlitefile.Conn
	write bool
	err   error
	env   replaystate.Env
	stamp replaystate.Stamp

	store   replaystate.Counts
	added   replaystate.Counts // to the store, by this call
	group   groupRow
	senders map[string]*senderRow
	streams map[replaystate.Key]*streamRow
	at      *streamRow // the stream of the item at hand
}

type groupRow struct {
	id     int64 // 0: not stored yet
	state  replaystate.Group
	counts replaystate.Counts
	added  replaystate.Counts
}

type senderRow struct {
	id     int64 // 0: not stored yet
	counts replaystate.Counts
	added  replaystate.Counts
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

func newCall(e *engine, c *sqlitefile.Conn, group string, write bool) *call {
	l := &call{
		e: e, c: c, write: write,
		senders: make(map[string]*senderRow, 1), streams: make(map[replaystate.Key]*streamRow, 1),
	}
	var err error
	if l.stamp, l.store, err = readStore(c); l.fail(err) {
		return l
	}
	_, err = c.One(selectGroup, func(r sqlitefile.Row) error {
		g, err := replaystate.DecodeGroup(r.Bytes(1))
		if l.corrupt(err) {
			return nil
		}
		l.group = groupRow{id: r.Int(0), state: *g, counts: counts(r, 2)}
		return nil
	}, group)
	l.fail(err)
	if l.group.id == 0 && write {
		l.group.id = l.counter()
		l.exec(insertGroup, l.group.id, group, replaystate.AppendGroup(nil, &l.group.state))
	}
	l.env = replaystate.Env{
		Now: e.now(), Birth: l.stamp.Birth, Group: &l.group.state, Span: span, ParkedTTL: e.limits.ParkedTTL, Room: l.room,
	}
	return l
}

// exec runs a statement, unless there was a failure.
func (l *call) exec(sql string, args ...any) {
	if l.err == nil {
		_, err := l.c.Exec(sql, args...)
		l.fail(err)
	}
}

// counter makes a row of counters and returns its ID.
func (l *call) counter() int64 {
	l.exec(insertCounter)
	return l.lastRow()
}

// lastRow returns the ID of the row inserted last.
func (l *call) lastRow() int64 {
	if l.err != nil {
		return 0
	}
	id, err := l.c.Int(lastRow)
	l.fail(err)
	return id
}

// fail remembers the first failure. It reports whether there is one.
func (l *call) fail(err error) bool {
	var answer *driver.Error
	if errors.As(err, &answer) {
		err = &abort{err}
	}
	if l.err == nil {
		l.err = err
	}
	return l.err != nil
}

// abort is a failure that undoes the transaction, although it is a driver.Error,
// which sqlitefile takes for an answer.
type abort struct{ cause error }

func (a *abort) Error() string { return a.cause.Error() }

// unabort returns the failure that an abort stands for.
func unabort(err error) error {
	var a *abort
	if errors.As(err, &a) {
		return a.cause
	}
	return err
}

// corrupt is fail for what was decoded.
func (l *call) corrupt(err error) bool {
	if err != nil {
		err = driver.Errorf(driver.Corrupt, "%w", err)
	}
	return l.fail(err)
}

// open loads a stream.
func (l *call) open(k replaystate.Key) {
	if l.at = l.streams[k]; l.at != nil {
		return
	}
	s := &streamRow{key: k, sender: l.sender(k.Sender), pages: make(map[uint64]*pageRow, 1)}
	l.at, l.streams[k] = s, s
	if s.sender.id == 0 || l.err != nil {
		return
	}
	id, err := l.c.Int(selectStream, s.sender.id, k.Stream[:])
	l.fail(err)
	s.id, s.held = id, id != 0
}

func (l *call) sender(name string) *senderRow {
	if s := l.senders[name]; s != nil {
		return s
	}
	s := &senderRow{}
	l.senders[name] = s
	if l.err == nil && l.group.id != 0 {
		_, err := l.c.One(selectSender, func(r sqlitefile.Row) error {
			s.id, s.counts = r.Int(0), counts(r, 1)
			return nil
		}, l.group.id, name)
		l.fail(err)
	}
	return s
}

// room says whether one more record fits, and one more stream if asked.
func (l *call) room(_ replaystate.Key, stream bool) replaystate.Outcome {
	l.count() // what the items before have added
	return l.e.limits.Room(plus(l.store, l.added), plus(l.group.counts, l.group.added), plus(l.at.sender.counts, l.at.sender.added), stream)
}

// Head implements replaystate.Stream.
func (l *call) Head() *replaystate.Head {
	s := l.at
	if !s.held || s.head != nil || l.err != nil {
		return s.head
	}
	_, err := l.c.One(selectHead, func(r sqlitefile.Row) error {
		h, err := replaystate.DecodeHead(r.Bytes(0))
		if !l.corrupt(err) {
			s.head, s.intervals = h, len(h.Intervals)
		}
		return nil
	}, s.id)
	l.fail(err)
	return s.head
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
	row := &pageRow{}
	s.pages[index] = row
	_, err := l.c.One(selectPage, func(r sqlitefile.Row) error {
		p, err := replaystate.DecodePage(r.Bytes(0), index, span)
		if !l.corrupt(err) {
			*row = pageRow{page: p, records: p.Records(), recents: p.Recents()}
		}
		return nil
	}, s.id, int64(index)) //nolint:gosec // G115: below 2^53
	l.fail(err)
	return row.page
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
	l.added.Add(d)
	l.group.added.Add(d)
	s.sender.added.Add(d)
}
