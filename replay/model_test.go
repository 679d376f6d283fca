package replay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// model is the contract written down as simply as can be, with times as Memory
// keeps them: a record lives to the end of its last second.
type model struct {
	start   time.Time
	max     int
	records map[string]*modelRecord
}

type modelRecord struct {
	token, broker         string
	consumed              bool
	firstSeen             time.Time
	lease                 time.Duration // since start; 0 when released
	claimedTo, consumedTo time.Duration
}

func (m *model) now() time.Duration { return time.Since(m.start) }

func (m *model) get(key string) *modelRecord {
	for k, r := range m.records {
		end := max(r.claimedTo, r.lease)
		if r.consumed {
			end = r.consumedTo
		}
		if m.now() > (end + time.Second - 1).Truncate(time.Second) {
			delete(m.records, k)
		}
	}
	return m.records[key]
}

func (m *model) begin(r Request, token string) (Claim, error) {
	rec := m.get(r.Group + "\x00" + string(r.ID))
	switch {
	case rec == nil && r.Now.After(r.FreshUntil):
		return Claim{}, ErrNotFresh
	case rec == nil && len(m.records) >= m.max:
		return Claim{}, ErrFull
	case rec == nil:
		rec = &modelRecord{firstSeen: r.Now}
		m.records[r.Group+"\x00"+string(r.ID)] = rec
	case rec.consumed && rec.broker == r.BrokerID && r.BrokerID != "":
		return Claim{FirstSeen: rec.firstSeen, Duplicate: true}, nil
	case rec.consumed:
		return Claim{}, ErrReused
	case rec.lease > m.now():
		return Claim{}, ErrBusy
	case r.Now.After(rec.firstSeen.Add(r.RetryWindow)):
		return Claim{}, ErrNotFresh
	}
	rec.token, rec.broker, rec.lease = token, r.BrokerID, m.now()+r.Lease
	rec.claimedTo = max(rec.claimedTo, m.now(), m.now()+r.RetainClaimed.Sub(r.Now))
	rec.consumedTo = max(rec.consumedTo, m.now(), m.now()+r.RetainConsumed.Sub(r.Now))
	return Claim{Token: token, FirstSeen: rec.firstSeen}, nil
}

func (m *model) settle(op, group string, id ID, token string, lease time.Duration) error {
	rec := m.get(group + "\x00" + string(id))
	switch {
	case rec == nil && op == "release":
		return nil
	case rec == nil:
		return ErrClaimLost
	case op == "release" && !rec.consumed && rec.token == "":
		return nil
	case op == "release" && rec.consumed, rec.token == "", rec.token != token:
		return ErrClaimLost
	case op == "renew" && (rec.consumed || rec.lease <= m.now()):
		return ErrClaimLost
	case op == "renew":
		rec.lease = m.now() + lease
	case op == "consume":
		rec.consumed, rec.lease = true, 0
		rec.consumedTo = max(rec.consumedTo, m.now())
	case op == "release":
		rec.token, rec.lease = "", 0
		rec.claimedTo = max(rec.claimedTo, m.now())
	}
	return nil
}

// TestMemoryModel does at random what receivers do and compares each answer
// with the model's.
func TestMemoryModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { walk(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func walk(t *testing.T, rnd *rand.Rand) {
	ctx := context.Background()
	const room = 24
	m, err := NewMemory(&MemoryOptions{MaxEntries: room})
	if err != nil {
		t.Fatal(err)
	}
	// A Memory counts from 1.
	want := &model{start: time.Now().Add(-1), max: room, records: make(map[string]*modelRecord)}
	tokens := []string{"", "0123456789abcdef0123456789abcdef"}
	some := func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d))) - d/10 }
	answers := make(map[string]int)
	for range 20000 {
		group, id := string('a'+rune(rnd.IntN(2))), ID('A'+rune(rnd.IntN(16)))
		token := tokens[len(tokens)-1-rnd.IntN(min(len(tokens), 20))]
		var got, exp error
		op := [...]string{"begin", "begin", "renew", "consume", "release", "sleep"}[rnd.IntN(6)]
		switch op {
		case "sleep":
			time.Sleep(time.Duration(rnd.Int64N(int64(4 * time.Second))))
		case "begin":
			now := time.Now()
			r := Request{
				Group: group, ID: id, BrokerID: [...]string{"", "x", "y"}[rnd.IntN(3)],
				Lease: 1 + time.Duration(rnd.Int64N(int64(9*time.Second))), Now: now,
				FreshUntil: now.Add(some(time.Minute)), RetryWindow: time.Minute,
				RetainClaimed: now.Add(some(time.Minute)), RetainConsumed: now.Add(some(30 * time.Second)),
			}
			var c, w Claim
			c, got = m.Begin(ctx, r)
			w, exp = want.begin(r, c.Token)
			if c.Token != w.Token || c.Duplicate != w.Duplicate || !c.FirstSeen.Equal(w.FirstSeen) {
				t.Fatalf("Begin: %+v, want %+v (%v, %v)", c, w, got, exp)
			}
			if c.Token != "" {
				tokens = append(tokens, c.Token)
			}
			if c.Duplicate {
				answers["duplicate"]++
			}
		case "renew":
			lease := 1 + time.Duration(rnd.Int64N(int64(9*time.Second)))
			got, exp = m.Renew(ctx, group, id, token, lease), want.settle(op, group, id, token, lease)
		case "consume":
			got, exp = m.Consume(ctx, group, id, token), want.settle(op, group, id, token, 0)
		case "release":
			got, exp = m.Release(ctx, group, id, token), want.settle(op, group, id, token, 0)
		}
		if !errors.Is(got, exp) {
			t.Fatalf("%s: %v, want %v", op, got, exp)
		}
		answers[fmt.Sprint(op, " ", exp)]++
		check(t, m)
	}
	// The walk went everywhere.
	for _, a := range []string{
		"begin <nil>", "begin " + ErrReused.Error(), "begin " + ErrBusy.Error(), "begin " + ErrNotFresh.Error(),
		"begin " + ErrFull.Error(), "duplicate", "renew <nil>", "renew " + ErrClaimLost.Error(),
		"consume <nil>", "consume " + ErrClaimLost.Error(), "release <nil>", "release " + ErrClaimLost.Error(),
	} {
		if answers[a] == 0 {
			t.Errorf("the walk never had %q", a)
		}
	}
}

// check holds the store's bookkeeping against itself.
func check(t *testing.T, m *Memory) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	listed := 0
	for second, n := range m.due.head {
		if second < m.due.swept {
			t.Fatalf("second %d is listed, but all before %d are swept", second, m.due.swept)
		}
		for prev := uint32(none); n != none; n = m.records.at(n).next {
			rec := m.records.at(n)
			if rec.prev != prev || rec.expiry() != second || m.index[rec.key] != n {
				t.Fatalf("record %d is listed wrongly: %+v under %d", n, rec, second)
			}
			prev = n
			listed++
		}
	}
	if listed != len(m.index) || uint32(listed) != m.records.used-m.records.freed {
		t.Fatalf("%d listed, %d indexed, %d used, %d free", listed, len(m.index), m.records.used, m.records.freed)
	}
}
