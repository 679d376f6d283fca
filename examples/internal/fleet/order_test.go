package fleet_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
)

// The webhooks of each pull request are handled in the order in which they were
// answered, although the bot is killed meanwhile.
func TestOrder(t *testing.T) {
	t.Parallel()
	const pulls, each, kills = 4, 40, 2
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f, err := fleet.Start(ctx, &fleet.Options{Dir: t.TempDir(), Lock: time.Second, BotEnv: []string{"SESSION_IDLE=20ms"}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var sending sync.WaitGroup
	for p := range pulls {
		sending.Go(func() {
			for n := range each {
				h := hooks.Hook{Event: "pull_request", Delivery: fmt.Sprintf("%d-%d", p, n),
					Body: fmt.Appendf(nil, `{"action":"edited","repository":{"full_name":"octo/hello"},"pull_request":{"number":%d}}`, p)}
				if a, err := f.Post(ctx, &h); err != nil || a.Status != http.StatusAccepted {
					t.Errorf("%d %s, %v", a.Status, a.Text, err)
				}
			}
		})
	}
	for k := range kills {
		if err := f.Wait(ctx, func(t []consumer.Task) bool { return len(t) >= (k+1)*pulls*each/(kills+2) }); err != nil {
			t.Fatal(err)
		}
		f.Bots[0].Kill()
		if err := f.Bots[0].Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	sending.Wait()
	seen := make(map[string]bool)
	var order []string // of first times
	err = f.Wait(ctx, func(tasks []consumer.Task) bool {
		clear(seen)
		order = order[:0]
		for _, task := range tasks {
			if !seen[task.ID] {
				seen[task.ID] = true
				order = append(order, task.ID)
			}
		}
		return len(order) == pulls*each
	})
	if err != nil {
		t.Fatal(err)
	}
	var next [pulls]int
	for _, id := range order {
		var p, n int
		if _, err := fmt.Sscanf(id, "%d-%d", &p, &n); err != nil {
			t.Fatal(err)
		}
		if n != next[p] {
			t.Fatalf("of pull request %d webhook %d was handled when %d was due", p, n, next[p])
		}
		next[p]++
	}
}

// The first phases of a migration: nothing is sealed, and nothing is lost when
// sealing begins while messages without it still wait.
func TestMigration(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f, err := fleet.New(&fleet.Options{Dir: t.TempDir(), RouterEnv: []string{"ENCRYPT=false"}, BotEnv: []string{"PLAINTEXT=allow_with_alert"}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Router.Start(ctx); err != nil {
		t.Fatal(err)
	}
	post := func(delivery string) {
		t.Helper()
		h := hooks.Hook{Event: "push", Delivery: delivery, Body: []byte(`{"ref":"refs/heads/main"}`)}
		if a, err := f.Post(ctx, &h); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("%d %s, %v", a.Status, a.Text, err)
		}
	}
	post("plain")
	if err := f.Router.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	f.Router.Setenv("ENCRYPT=true")
	if err := f.Router.Start(ctx); err != nil {
		t.Fatal(err)
	}
	post("sealed")
	for _, b := range f.Bots {
		if err := b.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Wait(ctx, func(t []consumer.Task) bool { return len(t) >= 2 }); err != nil {
		t.Fatal(err)
	}
	for _, task := range f.Tasks() {
		if want := task.ID == "sealed"; task.Encrypted != want {
			t.Errorf("webhook %s: encrypted is %v", task.ID, task.Encrypted)
		}
	}
	if err := f.Stop(ctx); err != nil {
		t.Error(err)
	}
}
