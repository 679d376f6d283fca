package redisreplay

import (
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// span is the number of sequences of a page. The smaller, the less often two receivers
// change one page at the same time.
const span = 64

// versionSize is the length of a version, which stands before each stored value.
const versionSize = 8

// place names a value of a group: its state, the head of a stream, a page, or, with
// nopages, that a stream has no page.
type place struct {
	kind  placeKind
	key   replaystate.Key
	index uint64
}

type placeKind byte

const (
	groupPlace placeKind = iota + 1
	headPlace
	pagePlace
	noPages
)

// stateField is the field of a group's state among its counts, whose names begin with
// a letter.
const stateField = "=state"

// streamField names a stream in a hash or a sorted set.
func streamField(k replaystate.Key) string {
	return string([]byte{byte(len(k.Sender))}) + k.Sender + string(k.Stream[:]) //nolint:gosec // G115: at most replay.MaxSender
}

// pageField names a page in the sorted set of those that are due.
func pageField(k replaystate.Key, index uint64) string {
	return string(binary.BigEndian.AppendUint64([]byte(streamField(k)), index))
}

var errField = errors.New("a stored name is damaged")

// parseStream is the reverse of streamField. It returns what follows.
func parseStream(field string) (k replaystate.Key, rest string, err error) {
	if field == "" || len(field) < 1+int(field[0])+len(k.Stream) {
		return k, "", errField
	}
	n := 1 + int(field[0])
	k.Sender = field[1:n]
	copy(k.Stream[:], field[n:])
	return k, field[n+len(k.Stream):], nil
}

// parsePage is the reverse of pageField.
func parsePage(field string) (k replaystate.Key, index uint64, err error) {
	k, rest, err := parseStream(field)
	if err != nil || len(rest) != 8 {
		return k, 0, errField
	}
	return k, binary.BigEndian.Uint64([]byte(rest)), nil
}

// call is one attempt at a transaction. It is the replaystate.Stream of the item at hand.
// After a failure it decodes nothing more, and is not sent.
type call struct {
	g       *group
	request request
	err     error
	env     replaystate.Env
	state   replaystate.Group
	read    map[place]bool // part of the request's reads

	added   replaystate.Counts // to the store and the group, by this call
	senders map[string]*replaystate.Counts
	streams map[replaystate.Key]*stream
	at      *stream               // the stream of the item at hand
	refused []string              // senders that there was no room for
	values  map[place][]byte      // that it writes
	found   [3]replaystate.Counts // as group.counted, of the answer
}

type stream struct {
	key       replaystate.Key
	head      *replaystate.Head
	read      bool // the head
	stored    bool // a head is stored
	intervals int  // that are stored
	dropped   bool
	pages     map[uint64]*page
}

// page is a page and what is stored of it.
type page struct {
	page    *replaystate.Page // nil: there is none
	records int
	recents int
	stored  bool
	deleted bool
}

func (g *group) newCall(write bool, now int64) *call {
	e := g.e
	l := &call{
		g: g, read: make(map[place]bool), values: make(map[place][]byte),
		senders: make(map[string]*replaystate.Counts), streams: make(map[replaystate.Key]*stream),
	}
	l.request = request{
		write: write, indexes: make(map[string]int),
		keys:   []string{e.server.key, g.name("count"), g.name("due"), g.name("heads")},
		counts: []string{"R", "T", "S", "I"},
	}
	if v := l.load(place{kind: groupPlace}); v != nil {
		s, err := replaystate.DecodeGroup(v)
		if !l.fail(err) {
			l.state = *s
		}
	}
	l.env = replaystate.Env{
		Now: now, Birth: e.stamped().Birth, Group: &l.state, Span: span, ParkedTTL: e.limits.ParkedTTL, Room: l.room,
	}
	return l
}

// name returns a key of the group.
func (g *group) name(kind string) string {
	return "{" + g.e.o.Prefix + "}:" + kind + ":" + strconv.Itoa(len(g.group)) + ":" + g.group
}

// pagesKey is the hash of a stream's pages, by index.
func (g *group) pagesKey(k replaystate.Key) string { return g.name("pages") + ":" + streamField(k) }

// oldKey is the sorted set of a sender's streams by their newest message.
func (g *group) oldKey(sender string) string { return g.name("old") + ":" + sender }

// fail remembers the first failure. It reports whether there is one.
func (l *call) fail(err error) bool {
	if l.err == nil {
		l.err = err
	}
	return l.err != nil
}

// load returns what is believed to be stored, nil for nothing, and has the transaction
// check it. What this process has not seen is taken for absent.
func (l *call) load(p place) []byte {
	value := l.g.cache[p]
	if !l.read[p] {
		l.read[p] = true
		r := &l.request
		key, field := l.where(p)
		version := ""
		if value != "" {
			version = value[:versionSize]
		}
		r.reads, r.read = append(r.reads, key, field, version), append(r.read, p)
	}
	if value == "" || l.err != nil {
		return nil
	}
	return []byte(value[versionSize:])
}

// where returns the index of the key and the field of a place.
func (l *call) where(p place) (key int, field string) {
	switch p.kind {
	case groupPlace:
		return countKey, stateField
	case headPlace:
		return headsKey, streamField(p.key)
	case pagePlace:
		return l.request.key(l.g.pagesKey(p.key)), strconv.FormatUint(p.index, 10)
	}
	return l.request.key(l.g.pagesKey(p.key)), ""
}

// save writes a value, or removes it if it is nil.
func (l *call) save(p place, value []byte) {
	key, field := l.where(p)
	l.request.put(key, field, value)
	l.values[p] = value
}

// open takes a stream up.
func (l *call) open(k replaystate.Key) {
	l.at = l.streams[k]
	if l.at == nil {
		l.at = &stream{key: k, pages: make(map[uint64]*page, 1)}
		l.streams[k] = l.at
	}
	if l.senders[k.Sender] == nil {
		l.senders[k.Sender] = &replaystate.Counts{}
		for _, c := range [...]string{"r", "t", "s", "i"} {
			l.request.counts = append(l.request.counts, c+k.Sender)
		}
	}
}

// room says whether one more record fits, and one more stream if asked.
func (l *call) room(k replaystate.Key, stream bool) replaystate.Outcome {
	l.count() // what the items before have added
	out := l.g.e.limits.Room(plus(l.g.e.storeCounts(), l.added), plus(l.g.counts, l.added), plus(l.g.senders[k.Sender], *l.senders[k.Sender]), stream)
	if out != 0 {
		l.refused = append(l.refused, k.Sender)
	}
	return out
}

// Head implements replaystate.Stream.
func (l *call) Head() *replaystate.Head {
	s := l.at
	if s.read || s.head != nil {
		return s.head
	}
	s.read = true
	if v := l.load(place{kind: headPlace, key: s.key}); v != nil {
		h, err := replaystate.DecodeHead(v)
		if !l.fail(err) {
			s.head, s.stored, s.intervals = h, true, len(h.Intervals)
		}
	}
	return s.head
}

// Page implements replaystate.Stream.
func (l *call) Page(index uint64) *replaystate.Page {
	s := l.at
	if p := s.pages[index]; p != nil {
		return p.page
	}
	row := &page{}
	s.pages[index] = row
	if v := l.load(place{pagePlace, s.key, index}); v != nil {
		p, err := replaystate.DecodePage(v, index, span)
		if !l.fail(err) {
			*row = page{page: p, records: p.Records(), recents: p.Recents(), stored: true}
		}
	}
	return row.page
}

// Add implements replaystate.Stream.
func (l *call) Add(h *replaystate.Head, p *replaystate.Page) {
	s := l.at
	if s.head == nil {
		l.countStream(s, replaystate.Counts{Streams: 1})
	}
	s.head = h
	s.pages[p.Index] = &page{page: p}
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

func (l *call) countStream(s *stream, d replaystate.Counts) {
	l.added.Add(d)
	l.senders[s.key.Sender].Add(d)
}

func plus(a, b replaystate.Counts) replaystate.Counts {
	a.Add(b)
	return a
}

// tight reports whether what is old should make room: then it is kept no longer than any
// receiver of the group can need it.
func (l *call) tight(sender string) bool {
	limits := &l.g.e.limits
	return limits.Sender.Tight(plus(l.g.senders[sender], *l.senders[sender])) || limits.Group.Tight(plus(l.g.counts, l.added)) ||
		limits.Store.Tight(plus(l.g.e.storeCounts(), l.added))
}

// finish adds what the call has changed to its request.
func (l *call) finish() {
	for _, s := range l.streams {
		l.saveStream(s)
	}
	if l.err != nil || !l.request.write {
		return
	}
	if l.state.Dirty {
		l.save(place{kind: groupPlace}, replaystate.AppendGroup(nil, &l.state))
	}
	r, limits := &l.request, &l.g.e.limits
	changes := func(key int, names string, sender string, n replaystate.Counts, b replaystate.Bound) {
		r.change(key, names[0:1]+sender, n.Records, b.Records)
		r.change(key, names[1:2]+sender, n.Recents, 0)
		r.change(key, names[2:3]+sender, n.Streams, b.Streams)
		r.change(key, names[3:4]+sender, n.Intervals, 0)
	}
	changes(storeKey, "RTSI", "", l.added, limits.Store)
	changes(countKey, "RTSI", "", l.added, limits.Group)
	for sender, n := range l.senders {
		changes(countKey, "rtsi", sender, *n, limits.Sender)
	}
}

func (l *call) saveStream(s *stream) {
	if l.err != nil || !l.request.write {
		return
	}
	l.at = s
	l.count()
	if s.dropped {
		l.save(place{kind: headPlace, key: s.key}, nil)
		l.request.unscore(l.request.key(l.g.oldKey(s.key.Sender)), streamField(s.key))
		return
	}
	if s.head != nil && (s.head.Dirty || !s.stored) {
		if n := len(s.head.Intervals) - s.intervals; n != 0 {
			l.countStream(s, replaystate.Counts{Intervals: int64(n)})
			s.intervals = len(s.head.Intervals)
		}
		l.save(place{kind: headPlace, key: s.key}, replaystate.AppendHead(nil, s.head))
		l.request.score(l.request.key(l.g.oldKey(s.key.Sender)), streamField(s.key), s.head.Newest)
	}
	for index, p := range s.pages {
		at := place{pagePlace, s.key, index}
		switch {
		case p.deleted:
			l.save(at, nil)
			l.request.unscore(dueKey, pageField(s.key, index))
		case p.page != nil && (p.page.Dirty || p.page.New && !p.stored):
			l.save(at, replaystate.AppendPage(nil, p.page))
			l.request.score(dueKey, pageField(s.key, index), p.page.Turn(l.env.Now))
		}
	}
}
