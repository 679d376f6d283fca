package sqlitequeue_test

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// TestAttacks performs the threat model's attacks by SQL on the file.
func TestAttacks(t *testing.T) {
	t.Parallel()
	h := harness(t, sqlitequeue.QueueOptions{MaxBody: 1 << 20}, time.Second, here)
	inBubbles(t, attacktest.Cases(h, soak(3, 10*attacktest.DefaultAttempts)))
}

var _ drivertest.Attacker = (*sqliteattack.Attacker)(nil)
