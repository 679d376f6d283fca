package fleet_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/testbed/redispeer"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// The bots remember in Redis what they handled. The broker replays everything that it ever
// stored, over and over, while bots and Redis are killed: nothing is handled again.
func TestRedis(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	server := redispeer.New(t, map[string]string{"appendonly": "yes", "appendfsync": "always"})
	all, err := hooks.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.Start(ctx, &fleet.Options{Dir: t.TempDir(), Lock: 2 * time.Second, BotEnv: []string{"SESSION_IDLE=20ms", "NONCES_URL=" + server.URL()}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Bots {
		p.Kill()
	}
	for i := range all {
		if a, err := f.Post(ctx, &all[i]); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("%s: %d %s, %v", all[i].Event, a.Status, a.Text, err)
		}
	}
	attacker, err := sqliteattack.Open(f.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = attacker.Close() }()
	stored := make(map[string][]driver.Message)
	for _, q := range fleet.Queues {
		if stored[q], err = attacker.Read(ctx, q); err != nil || len(stored[q]) == 0 {
			t.Fatalf("%s: %d messages, %v", q, len(stored[q]), err)
		}
	}
	for _, p := range f.Bots {
		if err := p.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Wait(ctx, func(t []consumer.Task) bool { return len(t) >= len(all) }); err != nil {
		t.Fatal(err)
	}
	replayed := 0
	for round := range 3 {
		for _, q := range fleet.Queues {
			replayed += len(stored[q])
			if err := attacker.Rewrite(ctx, q, func(now []driver.Message) []driver.Message { return append(now, stored[q]...) }); err != nil {
				t.Fatal(err)
			}
		}
		if round > 0 {
			if err := errors.Join(server.Kill(), server.Restart()); err != nil {
				t.Fatal(err)
			}
			for _, p := range f.Bots {
				p.Kill()
				if err := p.Start(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		awaitEmpty(ctx, t, attacker)
	}
	if err := f.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(map[string]int)
	for _, task := range f.Tasks() {
		if done[task.ID]++; done[task.ID] > 1 {
			t.Errorf("%s: %s was handled %d times", task.Bot, task.ID, done[task.ID])
		}
	}
	if len(done) != len(all) {
		t.Errorf("%d webhooks were handled, want %d", len(done), len(all))
	}
	t.Logf("%d webhooks were handled once, %d copies were not", len(done), replayed)
}

// awaitEmpty returns when the queues are empty.
func awaitEmpty(ctx context.Context, t *testing.T, a *sqliteattack.Attacker) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		for _, q := range fleet.Queues {
			m, err := a.Read(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			left += len(m)
		}
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d messages are left", left)
		}
	}
}
