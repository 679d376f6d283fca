package postgresreplay_test

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// TestRestoredDump restores a dump while the server goes on. Others have called since so often
// that the change number is higher than before: a process to which a later call was confirmed
// gives the store another ID all the same. After a dump without loss the ID stays.
func TestRestoredDump(t *testing.T) {
	t.Parallel()
	server := postgres.Shared(t)
	newStore := fixture(server, "", nil)(t, replay.Bounds{})
	p := &pair{TB: t}
	now := time.Now()
	busy := newStore.Open(0)
	p.handle(busy, request(1, now))
	before := p.id(busy)
	restore := newStore.Backup()
	restore()
	second := request(2, now)
	if c := p.claim(busy, second); c.Err != nil || c.Stamp.ID != before {
		t.Errorf("nothing lost: %v, another ID: %v", c.Err, c.Stamp.ID != before)
	}
	p.consume(busy, second)
	restore()
	other := newStore.Open(0)
	for n := range 10 {
		p.handle(other, request(10+n, now))
	}
	if id := p.id(other); id != before {
		t.Fatal("the process that has lost nothing sees another ID")
	}
	if c := p.claim(busy, request(3, now)); c.Stamp.ID == before || c.Stamp.Birth.Before(now) {
		t.Errorf("calls lost: the ID %x from before, %x, or its birth, %s", c.Stamp.ID, before, c.Stamp.Birth)
	}
}

// TestAcceptanceAfterRestoredDump restores a dump, and an operator accepts a loss before the
// process that has lost a call calls again. Others have called so often meanwhile that the
// change number tells nothing. What that process has lost is accepted only if the operator
// named the memory that it remembers.
func TestAcceptanceAfterRestoredDump(t *testing.T) {
	t.Parallel()
	another := replay.Stamp{ID: [16]byte{1}, Change: 5}
	for name, c := range map[string]struct {
		named   bool // the loss of the memory that the process remembers is accepted, of another one otherwise
		reads   bool // the process does not write
		loses   bool // it has lost a call
		noticed bool // so the store gets one more ID
	}{
		"another memory":               {loses: true, noticed: true},
		"another memory, a look":       {loses: true, noticed: true, reads: true},
		"that memory":                  {loses: true, named: true},
		"another memory, nothing lost": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newStore := fixture(postgres.Shared(t), "", nil)(t, replay.Bounds{})
			p := &pair{TB: t}
			now := time.Now()
			busy := newStore.Open(0)
			p.handle(busy, request(1, now))
			restore := newStore.Backup()
			if c.loses {
				p.handle(busy, request(2, now))
			}
			remembered := p.stamp(busy)
			restore()
			other := newStore.Open(0)
			for n := range 10 {
				p.handle(other, request(10+n, now))
			}
			lost := another
			if c.named {
				lost = remembered
			}
			accepted, err := other.AcceptLoss(t.Context(), lost)
			p.must(err)

			if c.reads {
				_, err = busy.Look(t.Context(), group, []replay.Query{{ID: request(3, now).ID, SealedAt: now}})
				p.must(err)
			} else {
				p.handle(busy, request(3, now))
			}
			h, err := other.History(t.Context())
			p.must(err)
			if noticed := h.Stamp.ID != accepted.To; noticed != c.noticed {
				t.Errorf("the store got another ID: %v, want %v", noticed, c.noticed)
			}
			if _, ok := h.Accepts(remembered); ok == c.noticed {
				t.Errorf("the receivers of the process go on: %v, want %v", ok, !c.noticed)
			}
			p.handle(busy, request(4, now))
			if again := p.id(other); again != h.Stamp.ID {
				t.Error("the ID changed once more")
			}
		})
	}
}
