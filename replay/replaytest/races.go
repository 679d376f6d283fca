package replaytest

import (
	"errors"
	"sync"

	"github.com/queue-runtime/queue/replay"
)

// contenders is how many goroutines want the same thing.
const contenders = 32

// together runs f so many times at once.
func together(n int, f func(i int)) {
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			f(i)
		})
	}
	done.Wait()
}

func oneWins(t *trial) {
	s := t.store()
	for range 4 {
		r := t.request(t.id())
		r.Lease = t.ticks(1000)
		claims, errs := make([]replay.Claim, contenders), make([]error, contenders)
		together(contenders, func(i int) { claims[i], errs[i] = s.Begin(t.Context(), r) })
		token := ""
		for i, err := range errs {
			switch {
			case err == nil && token == "":
				token = claims[i].Token
			case err == nil:
				t.Fatal("two hold one claim")
			default:
				is(t, "Begin", err, replay.ErrBusy)
			}
		}
		if token == "" {
			t.Fatal("nobody holds the claim")
		}
		// Its holder consumes, many times at once; others get nowhere.
		together(contenders, func(i int) {
			if i%2 == 0 {
				is(t, "Consume", s.Consume(t.Context(), r.Group, r.ID, token), nil)
				return
			}
			copied := r
			copied.BrokerID = "copy"
			if _, err := s.Begin(t.Context(), copied); !errors.Is(err, replay.ErrBusy) && !errors.Is(err, replay.ErrReused) {
				t.Errorf("Begin of a copy: %v", err)
			}
		})
		r.BrokerID = "copy"
		t.refused(s, r, replay.ErrReused)
	}
}

func manyIDs(t *trial) {
	s := t.store()
	const each = 8
	ids := make([]replay.ID, contenders*each)
	for i := range ids {
		ids[i] = t.id()
	}
	base := t.request("x")
	base.Lease = t.ticks(1000)
	var mu sync.Mutex
	won := make(map[replay.ID]int)
	// Everybody walks all IDs, each from another place.
	together(8, func(g int) {
		for i := range ids {
			r := base
			r.ID = ids[(i+g*contenders)%len(ids)]
			c, err := s.Begin(t.Context(), r)
			if err != nil {
				is(t, "Begin", err, replay.ErrBusy)
				continue
			}
			mu.Lock()
			won[r.ID]++
			mu.Unlock()
			is(t, "Renew", s.Renew(t.Context(), r.Group, r.ID, c.Token, r.Lease), nil)
		}
	})
	for _, id := range ids {
		if won[id] != 1 {
			t.Errorf("an ID was claimed %d times", won[id])
		}
	}
}

// consumeRace lets a holder whose lease is over consume while another begins:
// one of them wins.
func consumeRace(t *trial) {
	s := t.store()
	reqs := make([]replay.Request, contenders)
	claims := make([]replay.Claim, contenders)
	for i := range reqs {
		reqs[i] = t.request(t.id())
		claims[i] = t.claimed(s, reqs[i])
	}
	t.advance(t.ticks(5))
	consumed, begun := make([]error, contenders), make([]error, contenders)
	together(2*contenders, func(i int) {
		if n := i / 2; i%2 == 0 {
			consumed[n] = s.Consume(t.Context(), "group", reqs[n].ID, claims[n].Token)
		} else {
			r := reqs[n]
			r.BrokerID = "copy"
			_, begun[n] = s.Begin(t.Context(), r)
		}
	})
	for i := range reqs {
		switch {
		case consumed[i] == nil:
			is(t, "Begin after Consume", begun[i], replay.ErrReused)
		case begun[i] == nil:
			is(t, "Consume after Begin", consumed[i], replay.ErrClaimLost)
		default:
			t.Errorf("nobody won: %v, %v", consumed[i], begun[i])
		}
	}
}
