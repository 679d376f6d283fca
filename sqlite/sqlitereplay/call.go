package sqlitereplay

import (
	"errors"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// call is one call in a transaction. It is the replaystate.Stream of the item at hand.
// After a failure it loads nothing more and saves nothing, and the transaction is undone.
type call struct {
	e     *engine
	c     *sqlitefile.Conn
	write bool
	err   error
	env   replaystate.Env

	cache *cache
	group *groupRow
	added replaystate.Counts // to the store and to the group
	used  []*streamRow
	at    *streamRow // the stream of the item at hand
}

// What a call does.
const (
	reading = false
	writing = true
)

// newCall begins a call. A call that only reads has a cache of its own: what others
// remember belongs to the goroutine that writes.
func newCall(e *engine, c *sqlitefile.Conn, group string, write bool) *call {
	l := &call{e: e, c: c, write: write, cache: &cache{}}
	if write {
		l.cache = &e.cache
		l.cache.renew(c.Epoch())
	}
	known := l.cache.groups != nil // then nothing but this store has changed the file since
	if l.fail(l.cache.load(c)) {
		return l
	}
	if write && !known {
		l.check()
	}
	if l.group = l.cache.groups[group]; l.group == nil {
		l.loadGroup(group)
	}
	l.env = replaystate.Env{
		Now: e.now(), Birth: l.cache.stamp.Birth, Group: &l.group.state, Span: span, ParkedTTL: e.limits.ParkedTTL, Room: l.room,
	}
	return l
}

// loadGroup loads the group, and makes it if the call writes.
func (l *call) loadGroup(name string) {
	g := &groupRow{senders: make(map[string]*senderRow, 1), streams: make(map[replaystate.Key]*streamRow, 1)}
	l.group, l.cache.groups[name] = g, g
	l.cache.size++
	_, err := l.c.One(selectGroup, func(r sqlitefile.Row) error {
		state, err := replaystate.DecodeGroup(r.Bytes(1))
		if l.corrupt(err) {
			return nil
		}
		g.id, g.state, g.counts = r.Int(0), *state, counts(r, 2)
		return nil
	}, name)
	l.fail(err)
	if g.id == 0 && l.write {
		g.id = l.insert(insertCounter)
		l.exec(insertGroup, g.id, name, replaystate.AppendGroup(nil, &g.state))
	}
}

// exec runs a statement, unless there was a failure.
func (l *call) exec(sql string, args ...any) {
	if l.err == nil {
		_, err := l.c.Exec(sql, args...)
		l.fail(err)
	}
}

// insert is exec for the insertion of a row. It returns its ID.
func (l *call) insert(sql string, args ...any) (id int64) {
	if l.err == nil {
		var err error
		id, err = l.c.Insert(sql, args...)
		l.fail(err)
	}
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

// open makes a stream the one of the item at hand.
func (l *call) open(k replaystate.Key) {
	s := l.group.streams[k]
	if s == nil {
		s = l.loadStream(k)
	}
	if !s.used {
		s.used = true
		l.used = append(l.used, s)
	}
	l.at = s
}

func (l *call) loadStream(k replaystate.Key) *streamRow {
	s := &streamRow{key: k, sender: l.sender(k.Sender), pages: make(map[uint64]*pageRow, 1)}
	l.group.streams[k] = s
	l.cache.size++
	if s.sender.id == 0 || l.err != nil {
		return s
	}
	id, err := l.c.Int(selectStream, s.sender.id, k.Stream[:])
	l.fail(err)
	s.id, s.held = id, id != 0
	return s
}

func (l *call) sender(name string) *senderRow {
	if s := l.group.senders[name]; s != nil {
		return s
	}
	s := &senderRow{}
	l.group.senders[name] = s
	l.cache.size++
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
	return l.e.limits.Room(l.stored(), l.grouped(), l.at.sender.total(), stream)
}

// stored, grouped and total are counts with what the call has added.
func (l *call) stored() replaystate.Counts     { return plus(l.cache.store, l.added) }
func (l *call) grouped() replaystate.Counts    { return plus(l.group.counts, l.added) }
func (s *senderRow) total() replaystate.Counts { return plus(s.counts, s.added) }

// plus returns the sum of two counts.
func plus(a, b replaystate.Counts) replaystate.Counts {
	a.Add(b)
	return a
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
	if !l.at.held || l.err != nil {
		return nil
	}
	return l.page(index).page
}

// page returns the row of a page of the stream at hand, and notes that it is used.
func (l *call) page(index uint64) *pageRow {
	s := l.at
	p := s.pages[index]
	if p == nil {
		p = l.loadPage(s, index)
	}
	if !p.used {
		p.used = true
		s.usedPages = append(s.usedPages, p)
	}
	return p
}

func (l *call) loadPage(s *streamRow, index uint64) *pageRow {
	row := &pageRow{index: index}
	s.pages[index] = row
	l.cache.size++
	if s.id == 0 {
		return row
	}
	_, err := l.c.One(selectPage, func(r sqlitefile.Row) error {
		p, err := replaystate.DecodePage(r.Bytes(2), index, span)
		if !l.corrupt(err) {
			row.id, row.due, row.page, row.records, row.recents = r.Int(0), r.Int(1), p, p.Records(), p.Recents()
		}
		return nil
	}, s.id, int64(index)) //nolint:gosec // G115: below 2^53
	l.fail(err)
	return row
}

// Add implements replaystate.Stream.
func (l *call) Add(h *replaystate.Head, p *replaystate.Page) {
	s := l.at
	if !s.held {
		s.held = true
		l.countStream(s, replaystate.Counts{Streams: 1})
	}
	s.head = h
	l.page(p.Index).page = p
}

// count adds up what the pages of the item at hand have changed.
func (l *call) count() {
	for _, p := range l.at.usedPages {
		var records, recents int
		if p.page != nil {
			records, recents = p.page.Records(), p.page.Recents()
		}
		l.countStream(l.at, replaystate.Counts{Records: int64(records - p.records), Recents: int64(recents - p.recents)})
		p.records, p.recents = records, recents
	}
}

func (l *call) countStream(s *streamRow, d replaystate.Counts) {
	l.added.Add(d)
	s.sender.added.Add(d)
}
