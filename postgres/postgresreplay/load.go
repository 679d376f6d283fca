package postgresreplay

import (
	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
)

// want is what the first round trip of a call loads.
type want struct {
	pages []pageKey
	heads bool // also of streams whose pages are there
}

// columns are the pages of a want as the server takes them.
type columns struct {
	senders, streams [][]byte
	places           []int64
	names            [][]byte // of the senders, each once
}

func columnsOf(pages []pageKey) (c columns) {
	seen := make(map[string]struct{}, 1)
	c.senders, c.streams, c.places = make([][]byte, len(pages)), make([][]byte, len(pages)), make([]int64, len(pages))
	c.names = make([][]byte, 0, 1)
	for i := range pages {
		p := &pages[i]
		c.senders[i], c.streams[i] = []byte(p.key.Sender), p.key.Stream[:]
		c.places[i] = int64(p.place) //nolint:gosec // G115: below 2^53
		if _, ok := seen[p.key.Sender]; !ok {
			seen[p.key.Sender] = struct{}{}
			c.names = append(c.names, c.senders[i])
		}
	}
	return c
}

// begin begins a transaction that writes: it locks the group, which it makes if it is
// not there, and loads what is wanted. One round trip.
func (l *call) begin(w want) {
	l.write = true
	locked := l.load(w, beginWriting, func(b *pgx.Batch) { b.Queue(l.e.sql(lockGroup), []byte(l.name)) })
	if l.err != nil || locked {
		return
	}
	// The first call of the group. Another one may make it at the same time.
	if _, err := l.c.Exec(l.ctx, l.e.sql(insertGroup), []byte(l.name)); l.fail(err) {
		return
	}
	clear(l.senders)
	clear(l.streams)
	if !l.load(w, "", func(b *pgx.Batch) { b.Queue(l.e.sql(lockGroup), []byte(l.name)) }) {
		l.fail(driver.Errorf(driver.Corrupt, "the row of the group was removed"))
	}
}

// snapshot begins a transaction that only reads.
func (l *call) snapshot(w want) { l.load(w, beginReading, nil) }

// load makes one round trip. It reports whether the statement of lock found a row.
func (l *call) load(w want, begin string, lock func(*pgx.Batch)) (locked bool) {
	b, columns := &pgx.Batch{}, columnsOf(w.pages)
	name := []byte(l.name)
	if begin != "" {
		b.Queue(begin)
		b.Queue(settings)
	}
	if lock != nil {
		lock(b)
	}
	b.Queue(l.e.sql(selectStore), name)
	if len(w.pages) > 0 {
		b.Queue(l.e.sql(selectSenders), name, columns.names)
		b.Queue(l.e.sql(selectPages), name, columns.senders, columns.streams, columns.places, w.heads)
		b.Queue(l.e.sql(selectCompletions), name, columns.senders, columns.streams, columns.places)
	}
	r := l.c.SendBatch(l.ctx, b)
	defer func() { l.fail(r.Close()) }()
	if begin != "" {
		for range 2 {
			if _, err := r.Exec(); l.fail(err) {
				return false
			}
		}
	}
	if lock != nil {
		l.next(r, func(r pgx.Rows) error { locked = true; return nil })
	}
	found := false
	l.next(r, func(r pgx.Rows) error { found = true; return l.scanStore(r) })
	if !found {
		l.fail(driver.Errorf(driver.Corrupt, "the row of the store is gone"))
	}
	if len(w.pages) > 0 {
		l.next(r, l.scanSender)
		l.nextPages(r, w.pages)
		l.next(r, l.scanCompletion)
	}
	return locked
}

// next reads the rows of the next statement of a batch.
func (l *call) next(r pgx.BatchResults, each func(pgx.Rows) error) {
	if l.err == nil {
		q, err := r.Query()
		l.fail(rows(q, err, each))
	}
}

func (l *call) scanStore(r pgx.Rows) error {
	var version int
	var uid, state []byte
	var now, others int64
	g, o := &l.group, &l.others
	err := r.Scan(&version, &uid, &l.stamp.Birth, &now, &g.id, &g.version, &g.stored.Records, &g.stored.Recents, &g.stored.Streams,
		&g.stored.Intervals, &g.lastID, &state, &l.run.id, &l.run.newest.started, &l.run.newest.file, &l.run.now.started, &l.run.now.file,
		&others, &o.Records, &o.Recents, &o.Streams, &o.Intervals)
	if err != nil {
		return err
	}
	if version != len(migrations) {
		return ErrNewer // it was this one's when the store was opened
	}
	copy(l.stamp.ID[:], uid)
	if id := l.e.id.Load(); id == nil || *id != l.stamp.ID {
		id := l.stamp.ID
		l.e.id.Store(&id)
	}
	l.stamp.Change = uint64(others + g.version) //nolint:gosec // G115: count up from 0
	if state != nil {
		s, err := replaystate.DecodeGroup(state)
		if l.corrupt(err) {
			return nil
		}
		g.state = *s
	}
	l.env = replaystate.Env{
		Now: l.e.clock(now), Birth: l.stamp.Birth, Group: &g.state, Span: span, ParkedTTL: l.e.limits.ParkedTTL, Room: l.room,
	}
	return nil
}

func (l *call) scanSender(r pgx.Rows) error {
	var name []byte
	s := &senderRow{}
	n := &s.stored
	if err := r.Scan(&name, &s.id, &s.version, &n.Records, &n.Recents, &n.Streams, &n.Intervals); err != nil {
		return err
	}
	if known := l.senders[string(name)]; known == nil || known.id == 0 && !known.fresh {
		l.senders[string(name)] = s
	}
	return nil
}

// loadedPage is a row of selectPages.
type loadedPage struct {
	stream     int64
	body, head []byte
}

// nextPages reads the rows of selectPages, the next statement of a batch.
func (l *call) nextPages(r pgx.BatchResults, pages []pageKey) {
	loaded := make([]loadedPage, len(pages))
	l.next(r, func(r pgx.Rows) error { return scanPage(r, loaded) })
	l.enter(pages, loaded)
}

func scanPage(r pgx.Rows, loaded []loadedPage) error {
	var n int64
	var p loadedPage
	if err := r.Scan(&n, &p.stream, &p.body, &p.head); err != nil {
		return err
	}
	if n < 1 || n > int64(len(loaded)) {
		return driver.Errorf(driver.Corrupt, "the server counts rows wrongly")
	}
	loaded[n-1] = p
	return nil
}

// enter takes over what was loaded, unless the call has changed it meanwhile.
func (l *call) enter(pages []pageKey, loaded []loadedPage) {
	for i := range pages {
		if l.err != nil {
			return
		}
		p := &loaded[i]
		s := l.streams[pages[i].key]
		if s == nil {
			s = l.stream(pages[i].key)
			s.id, s.held = p.stream, p.stream != 0
		}
		if s.id != p.stream {
			continue // this call has dropped it, or makes it
		}
		if p.head != nil && s.head == nil {
			l.setHead(s, p.head)
		}
		if s.pages[pages[i].place] != nil {
			continue
		}
		row := &pageRow{}
		s.pages[pages[i].place] = row
		if p.body == nil {
			continue
		}
		page, err := replaystate.DecodePage(p.body, pages[i].place, span)
		if !l.corrupt(err) {
			*row = pageRow{page: page, records: page.Records(), recents: page.Recents()}
		}
	}
}

// What loadPages loads: also the first pages of the streams, or not.
const (
	pagesAlone = false
	withHeads  = true
)

// loadPages loads pages that the first round trip has not brought, and the senders of
// their streams.
func (l *call) loadPages(pages []pageKey, heads bool) {
	if l.err != nil {
		return
	}
	c, name := columnsOf(pages), []byte(l.name)
	b := &pgx.Batch{}
	b.Queue(l.e.sql(selectSenders), name, c.names)
	b.Queue(l.e.sql(selectPages), name, c.senders, c.streams, c.places, heads)
	r := l.c.SendBatch(l.ctx, b)
	defer func() { l.fail(r.Close()) }()
	l.next(r, l.scanSender)
	l.nextPages(r, pages)
}

func (l *call) scanCompletion(r pgx.Rows) error {
	var sender, stream, token []byte
	var sequence int64
	var c replaystate.Completion
	if err := r.Scan(&sender, &stream, &sequence, &token, &c.At); err != nil {
		return err
	}
	if sequence < 1 || len(stream) != len(c.Key.Stream) || len(token) != len(c.Token) {
		return driver.Errorf(driver.Corrupt, "a row of completion is damaged")
	}
	c.Key.Sender, c.Sequence = string(sender), uint64(sequence)
	copy(c.Key.Stream[:], stream)
	copy(c.Token[:], token)
	c.At = l.e.clock(c.At)
	l.completions = append(l.completions, c)
	return nil
}

// accounts returns the next streams of the group behind a number, and the last of
// them, 0 at the end.
func (l *call) accounts(from int64) (entries []replaystate.Entry, last int64) {
	var all []*streamRow
	var ids []int64
	var senders, streams [][]byte
	l.query(listStreams, func(r pgx.Rows) error {
		var name, stream, head []byte
		s := &streamRow{held: true, sender: &senderRow{}, pages: make(map[uint64]*pageRow)}
		if err := r.Scan(&s.id, &name, &stream, &head); err != nil {
			return err
		}
		s.key.Sender = string(name)
		copy(s.key.Stream[:], stream)
		l.setHead(s, head)
		l.streams[s.key] = s
		all, ids, senders, streams = append(all, s), append(ids, s.id), append(senders, name), append(streams, stream)
		return nil
	}, l.group.id, from, int64(streamsStep))
	byID := make(map[int64]*streamRow, len(all))
	for _, s := range all {
		byID[s.id] = s
	}
	l.query(pagesOf, func(r pgx.Rows) error {
		var stream, place int64
		var body []byte
		if err := r.Scan(&stream, &place, &body); err != nil {
			return err
		}
		p, err := replaystate.DecodePage(body, uint64(place), span) //nolint:gosec // G115: written from one
		if !l.corrupt(err) {
			byID[stream].pages[p.Index] = &pageRow{page: p}
		}
		return nil
	}, l.group.id, ids)
	l.completions = nil
	l.query(completionsOf, l.scanCompletion, l.group.id, senders, streams)
	for i := range l.completions {
		l.at = l.streams[l.completions[i].Key]
		replaystate.Complete(&l.env, l, &l.completions[i])
	}
	if l.err != nil {
		return nil, 0
	}
	for _, s := range all {
		var pages []*replaystate.Page
		for _, p := range s.pages {
			if p.page != nil {
				pages = append(pages, p.page)
			}
		}
		entries = append(entries, replaystate.Entry{Key: s.key, Account: replaystate.Count(&l.env, s.key, s.head, pages)})
		last = s.id
	}
	if len(all) < streamsStep {
		last = 0
	}
	return entries, last
}
