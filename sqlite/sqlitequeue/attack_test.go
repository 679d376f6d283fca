package sqlitequeue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/sqlite/sqliteattack"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// TestAttacks performs the threat model's attacks by SQL on the file.
func TestAttacks(t *testing.T) {
	t.Parallel()
	h := harness(t, sqlitequeue.QueueOptions{MaxBody: 1 << 20}, time.Second, here)
	h.AttackAttempts = 20 / scale
	drivertest.Attacks(drivertest.NewIn(t, synctest.Test), h)
}

var _ drivertest.Attacker = (*sqliteattack.Attacker)(nil)
