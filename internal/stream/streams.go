package stream

import (
	"slices"
	"sync"
)

// maxKeys is how many key IDs have streams at a time: the current one and those
// that a rotation under way flaps between. The one used longest ago goes.
const maxKeys = 4

// Kind says which of the two streams of a key a message belongs to.
type Kind uint8

const (
	// Plain is the stream that receivers account for.
	Plain Kind = iota
	// Loose is for messages that may arrive late or never by design: with
	// NotBefore or ExpiresAt, or prepared to be sent by another program. Settled
	// and Previous are 0 in it.
	Loose
)

// Streams are the streams of one sender: two for each key ID, plain and loose. It
// opens them when they are first used, and anew
//
//   - when wall and monotonic clock moved apart by more than 5 s since the last
//     use, or the process ID changed: the process was suspended or restored;
//   - after 24 hours without a use;
//   - when the sequence of an outstanding message lies 65,536 back, or 256 if the
//     outcome of one is unknown.
type Streams struct {
	onReset func()

	mu   sync.Mutex // guards what follows, and every series
	last Reading    // of the last use
	used bool
	keys []keyStreams // the one used last in front
}

// keyStreams are the streams of one key ID.
type keyStreams struct {
	key    string
	series [2]*series // by Kind; nil until used
}

// New returns Streams that have opened none. onReset is called when all streams
// are given up because the process was suspended, copied or restored, before any
// number of a new one is given out: the sender then ends its salt epochs. It must
// be quick and must not call Streams. Nil means that there is nothing to do.
func New(onReset func()) *Streams { return &Streams{onReset: onReset} }

// Call numbers the messages of one call of the sender, of one Send or SendBatch. In
// it, a message's previous is the one before it in the same session, though that
// one is not confirmed yet. It is safe for concurrent use.
type Call struct {
	s   *Streams
	now Reading
	own map[ownSession]uint64 // the last sequence of each session within the call; the mutex of s guards it
}

type ownSession struct {
	series  *series
	session string
}

// Call returns a call that begins at that reading.
func (s *Streams) Call(now Reading) *Call {
	c := new(Call)
	s.Begin(c, now)
	return c
}

// Begin begins c, which is zero, at that reading.
func (s *Streams) Begin(c *Call, now Reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used && s.last.broken(now) {
		s.reset()
	}
	s.last, s.used = now, true
	c.s, c.now = s, now
}

// Reset gives up all streams. The next message opens another.
func (s *Streams) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reset()
}

// reset is Reset; mu is held.
func (s *Streams) reset() {
	s.keys = nil
	if s.onReset != nil {
		s.onReset()
	}
}

// Number is what a message's header says, for envelope.Header. Exactly one of
// Confirm, Void and Unknown is to be called once it is known which; later ones are
// ignored. They are safe for concurrent use.
type Number struct {
	Stream   ID
	Sequence uint64
	Settled  uint64
	Previous uint64
	Voids    []Range // shared: not to be changed

	s       *Streams
	series  *series
	session string
}

// Next gives out the next number of the stream of that kind for a key ID. session
// is the message's session ID, empty if it has none.
func (c *Call) Next(kind Kind, key, session string) Number {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.seriesOf(kind, key, c.now.Wall)
	n := Number{Stream: r.id, Sequence: r.take(), s: s, series: r, session: session}
	if kind == Loose {
		return n
	}
	n.Settled, n.Voids = r.settled, r.voids.shared
	if session != "" {
		n.Previous = c.previous(r, session, n.Sequence)
	}
	return n
}

// previous returns the message before sequence in its session, and notes sequence
// as the last.
func (c *Call) previous(r *series, session string, sequence uint64) uint64 {
	k := ownSession{r, session}
	was, ok := c.own[k]
	if !ok {
		was = r.sessions.get(session)
	}
	if c.own == nil {
		c.own = make(map[ownSession]uint64, 1)
	}
	c.own[k] = sequence
	return was
}

// seriesOf returns the stream of that kind for a key ID, opening it at wall if
// there is none that has room. mu is held.
func (s *Streams) seriesOf(kind Kind, key string, wall int64) *series {
	if i := slices.IndexFunc(s.keys, func(k keyStreams) bool { return k.key == key }); i != 0 {
		k := keyStreams{key: key}
		switch {
		case i > 0:
			k = s.keys[i]
			s.keys = slices.Delete(s.keys, i, i+1)
		case len(s.keys) == maxKeys:
			s.keys = s.keys[:maxKeys-1]
		}
		s.keys = slices.Insert(s.keys, 0, k)
	}
	k := &s.keys[0]
	if r := k.series[kind]; r == nil || r.full() {
		k.series[kind] = newSeries(wall, kind == Loose)
	}
	return k.series[kind]
}

// Confirm says that the broker has the message.
func (n *Number) Confirm() { n.end(confirmed) }

// Void says that the message was not sent, and never will be.
func (n *Number) Void() { n.end(void) }

// Unknown says that the sender gave up without learning whether the broker has the
// message. Its stream settles nothing from it on.
func (n *Number) Unknown() { n.end(unknown) }

func (n *Number) end(to state) {
	if n.s == nil {
		return // the zero Number: none was given out
	}
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	r := n.series
	if !r.settle(n.Sequence, to) {
		return
	}
	if to == confirmed {
		r.voids.confirmed(n.Voids)
		if n.session != "" {
			r.sessions.confirm(n.session, n.Sequence)
		}
	}
	r.advance()
}
