package replaytest

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// modelSteps bounds the steps of a schedule.
const modelSteps = 40

// model is one schedule: senders, receivers, and a broker that delivers what it
// likes as often as it likes, to receivers with clocks and beliefs of their own.
type model struct {
	t         *trial
	r         *rand.Rand
	ledger    *ledger
	receivers []*receiver
	streams   []*sending
	sent      []replay.Request
	began     time.Time
}

// receiver has a handle and the claims that it holds.
type receiver struct {
	s     replay.Store
	lossy bool
	open  []replay.Request
}

// sending is a stream with what its sender knows.
type sending struct {
	id      replay.Identity
	next    uint64
	settled uint64 // the largest that was delivered and granted
	void    map[uint64]bool
	ranges  []replay.Range
}

// schedules runs random schedules. A failure names the seed of its schedule.
func schedules(t *trial) {
	seed := t.o.Seed
	if seed == 0 {
		seed = rand.Uint64() //nolint:gosec // G404: a schedule, not a secret
	}
	for n := range uint64(t.o.Schedules) { //nolint:gosec // G115: not negative
		before := len(t.failures)
		t.scoped(func() { newModel(t, seed+n).run() })
		if len(t.failures) > before {
			t.fatalf("in the schedule of seed %d", seed+n)
		}
	}
}

func newModel(t *trial, seed uint64) *model {
	m := &model{t: t, r: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // G404: a schedule, not a secret
	f := t.fixture(replay.Bounds{KeepStream: time.Hour, Recent: 1 + m.r.IntN(8)})
	m.ledger = &ledger{observes: t.o.Observes, keep: time.Hour, entries: make(map[replay.Identity]*entry), calm: true}
	for range 3 {
		s := f.Open(0)
		to := &receiver{s: s, lossy: t.o.Unreliable || m.r.IntN(2) == 0}
		if to.lossy {
			to.s = lossy{s, func() bool { return m.r.IntN(4) == 0 }}
		}
		m.receivers = append(m.receivers, to)
	}
	t.advance(2 * skew)
	m.began = time.Now()
	return m
}

func (m *model) run() {
	m.openStream()
	for range modelSteps {
		switch m.r.IntN(12) {
		case 0, 1:
			m.send()
		case 2, 3, 4, 5:
			m.deliver()
		case 6, 7, 8:
			m.finish()
		case 9:
			m.renew()
		case 10:
			m.look()
		case 11:
			m.disturb()
		}
		if len(m.t.failures) > 0 {
			return
		}
	}
	m.count()
	m.replayAll()
}

func (m *model) openStream() {
	id := m.t.stream([]string{"", "a", "b"}[m.r.IntN(3)], time.Now())
	m.t.streams = byte(m.r.IntN(256))    //nolint:gosec // G115: below 256
	id.Stream[14] = byte(len(m.streams)) //nolint:gosec // G115: a schedule opens fewer than 256
	m.streams = append(m.streams, &sending{id: id, next: 1, void: make(map[uint64]bool)})
}

// send seals some messages. Some sendings fail, and are void.
func (m *model) send() {
	if m.r.IntN(8) == 0 {
		m.openStream()
	}
	s := m.streams[m.r.IntN(len(m.streams))]
	if m.r.IntN(6) == 0 {
		s.next += uint64(m.r.IntN(300)) //nolint:gosec // G115: positive; the broker never got these
	}
	for range 1 + m.r.IntN(5) {
		n := s.next
		s.next++
		if m.r.IntN(8) == 0 {
			s.void[n] = true
			s.ranges = append(s.ranges, replay.Range{First: n, Last: n})
			s.ranges = s.ranges[max(0, len(s.ranges)-replay.MaxVoid):]
			continue
		}
		r := at(s.id, n)
		r.Settled, r.Void = n-1, append([]replay.Range(nil), s.ranges...)
		if n > 1 && m.r.IntN(2) == 0 {
			r.Previous = n - 1
			if s.void[n-1] {
				r.Previous = 0
			}
		}
		m.sent = append(m.sent, r)
		m.t.advance(time.Millisecond)
	}
}

// pick returns a message, a recent one more often.
func (m *model) pick() replay.Request {
	n := len(m.sent)
	if m.r.IntN(2) == 0 {
		return m.sent[m.r.IntN(n)]
	}
	return m.sent[n-1-m.r.IntN(min(n, 6))]
}

func (m *model) deliver() {
	if len(m.sent) == 0 {
		m.send()
	}
	if len(m.sent) == 0 {
		return
	}
	to := m.receivers[m.r.IntN(len(m.receivers))]
	var batch []replay.Request
	for range 1 + m.r.IntN(6) {
		r := again(m.pick())
		if to.lossy && slices.ContainsFunc(batch, func(b replay.Request) bool { return b.ID == r.ID }) {
			continue // a repeated call answers by what its first run did to both
		}
		r.Now = r.Now.Add(time.Duration(m.r.Int64N(int64(2*skew))) - skew)
		if m.r.IntN(4) == 0 { // a receiver that believes in every age
			r.FreshUntil = r.Now.Add(1000 * time.Hour)
		}
		if m.r.IntN(12) == 0 { // sealed twice under one identity
			r.Tag[0] ^= 0x80
		}
		batch = append(batch, r)
	}
	c, err := insist(m.t.ctx, to.s.Begin, batch)
	if err != nil || len(c) != len(batch) {
		m.t.errorf("Begin: %d answers, %v", len(c), err)
		return
	}
	for i := range batch {
		if err := m.ledger.begun(&batch[i], &c[i]); err != nil {
			m.t.errorf("Begin, sender %q, sequence %d: %v", batch[i].ID.Sender, batch[i].ID.Sequence, err)
		}
		if c[i].Err == nil {
			to.open = append(to.open, batch[i])
			m.settled(&batch[i])
		}
	}
}

// settled notes what a granted message settles.
func (m *model) settled(r *replay.Request) {
	for _, s := range m.streams {
		if s.id.Stream == r.ID.Stream && s.id.Sender == r.ID.Sender {
			s.settled = max(s.settled, r.Settled)
		}
	}
}

func (m *model) finish() {
	to := m.receivers[m.r.IntN(len(m.receivers))]
	if len(to.open) == 0 {
		return
	}
	var batch []replay.Finish
	for range 1 + m.r.IntN(3) {
		i := m.r.IntN(len(to.open))
		r := to.open[i]
		if to.lossy && slices.ContainsFunc(batch, func(b replay.Finish) bool { return b.ID == r.ID }) {
			continue
		}
		kind := replay.Consumed
		if n := m.r.IntN(8); n < 2 {
			kind = replay.Released + replay.FinishKind(n) //nolint:gosec // G115: 0 or 1
		}
		batch = append(batch, replay.Finish{ID: r.ID, Token: r.Token, Kind: kind})
		if m.r.IntN(4) > 0 && len(to.open) > 1 { // else it may be finished again
			to.open = append(to.open[:i], to.open[i+1:]...)
		}
	}
	f, err := insist(m.t.ctx, to.s.Finish, batch)
	if err != nil || len(f) != len(batch) {
		m.t.errorf("Finish: %d answers, %v", len(f), err)
		return
	}
	if to.lossy || m.t.o.Observes { // pages are written side by side, and swept meanwhile
		m.ledger.expect(batch)
	}
	for i := range f {
		if err := m.ledger.finished(&batch[i], f[i].Err); err != nil {
			m.t.errorf("Finish, sequence %d: %v", batch[i].ID.Sequence, err)
		}
	}
}

func (m *model) renew() {
	to := m.receivers[m.r.IntN(len(m.receivers))]
	if len(to.open) == 0 {
		return
	}
	r := to.open[m.r.IntN(len(to.open))]
	got, err := insist(m.t.ctx, to.s.Renew, []replay.Lease{{ID: r.ID, Token: r.Token, Lease: lease}})
	if err != nil || len(got) != 1 {
		m.t.errorf("Renew: %d answers, %v", len(got), err)
		return
	}
	e, now := m.ledger.entries[r.ID], time.Now()
	mine := e.status == "claimed" && e.token == r.Token
	switch {
	case got[0].Err == nil && !mine:
		m.t.errorf("Renew: extended, although the message is %q", e.status)
	case got[0].Err != nil && mine && now.Before(e.until):
		m.t.errorf("Renew: %v of a live claim", got[0].Err)
	case got[0].Err == nil:
		e.until = now.Add(lease)
	}
}

func (m *model) look() {
	if len(m.sent) == 0 {
		return
	}
	r := m.pick()
	q := replay.Query{ID: r.ID, SealedAt: r.SealedAt}
	got, err := m.receivers[0].s.Look(m.t.ctx, group, []replay.Query{q})
	if err != nil || len(got) != 1 {
		m.t.errorf("Look: %d answers, %v", len(got), err)
		return
	}
	if err := m.ledger.looked(&q, &got[0]); err != nil {
		m.t.errorf("Look, sequence %d: %v", r.ID.Sequence, err)
	}
}

// disturb lets time pass, or a receiver die.
func (m *model) disturb() {
	switch m.r.IntN(6) {
	case 0:
		m.receivers[m.r.IntN(len(m.receivers))].open = nil
	case 1:
		m.t.advance(time.Second)
	case 2:
		m.t.advance(lease + time.Second)
	case 3:
		m.t.advance(6 * time.Minute)
	case 4:
		m.t.advance(time.Duration(m.r.Int64N(int64(2 * time.Hour))))
	case 5:
		if m.r.IntN(4) == 0 {
			m.t.advance(26 * time.Hour)
		}
	}
	m.ledger.calm = time.Since(m.began) < 50*time.Minute
}

// count compares the accounts and numbers of the store with the ledger's.
func (m *model) count() {
	if !m.ledger.calm {
		return
	}
	h := handle{m.t, m.receivers[0].s}
	streams := make(map[replay.Identity]bool)
	records := int64(0)
	for id, e := range m.ledger.entries {
		if e.token != (replay.Token{}) {
			id.Sequence = 0
			streams[id] = true
		}
		if e.known(time.Now()) {
			records++
		}
	}
	if s := h.stats(); s.Records != records || s.Streams != int64(len(streams)) {
		m.t.errorf("%d records and %d streams, want %d and %d", s.Records, s.Streams, records, len(streams))
	}
	for _, s := range m.streams {
		id := s.id
		id.Sequence = 0
		if !streams[id] {
			continue
		}
		void := make(map[uint64]bool) // what a message that was granted says
		for _, r := range m.sent {
			if e := m.ledger.entries[r.ID]; r.ID.Stream == s.id.Stream && r.ID.Sender == s.id.Sender && e != nil && e.token != (replay.Token{}) {
				for _, v := range r.Void {
					void[v.First] = true
				}
			}
		}
		m.compare(h, s, void)
	}
}

func (m *model) compare(h handle, s *sending, void map[uint64]bool) {
	a := h.account(s.id)
	if a == nil {
		m.t.errorf("a stream is not held")
		return
	}
	want, unsure := m.ledger.missing(s.id, s.settled, void)
	for _, r := range a.Missing {
		for n := r.Range.First; n <= r.Range.Last; n++ {
			if !want[n] && !unsure[n] {
				m.t.errorf("sequence %d is missing, it should not be", n)
			}
			delete(want, n)
		}
	}
	for n := range want {
		m.t.errorf("sequence %d is not missing, it should be", n)
	}
}

// replayAll has the broker deliver everything once more, to a receiver that takes
// every age for fresh.
func (m *model) replayAll() {
	m.t.advance(lease)
	for _, r := range m.sent {
		r = forever(r)
		c, err := insist(m.t.ctx, m.receivers[0].s.Begin, []replay.Request{r})
		if err != nil {
			m.t.errorf("Begin: %v", err)
			return
		}
		if e := m.ledger.entries[r.ID]; e != nil && e.status == "consumed" && c[0].Err == nil {
			m.t.errorf("sequence %d is granted at the end, although it was consumed", r.ID.Sequence)
		}
	}
}
