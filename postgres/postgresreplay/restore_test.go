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
