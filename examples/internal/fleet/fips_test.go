package fleet_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
)

// The programs work on SQLite where nothing but FIPS 140-3 is allowed: signatures,
// sealing, metrics and all.
func TestFIPS(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	only := []string{"GODEBUG=fips140=only"}
	f, err := fleet.Start(ctx, &fleet.Options{Dir: t.TempDir(), RouterEnv: only, BotEnv: only})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, event := range []string{"pull_request", "issues", "push"} {
		h := hooks.Hook{Event: event, Delivery: event, Body: []byte(`{"repository":{"full_name":"octo/hello"}}`)}
		if a, err := f.Post(ctx, &h); err != nil || a.Status != http.StatusAccepted {
			t.Fatalf("%d %s, %v", a.Status, a.Text, err)
		}
	}
	if err := f.Wait(ctx, func(t []consumer.Task) bool { return len(t) >= 3 }); err != nil {
		t.Fatal(err)
	}
	for _, p := range append([]*fleet.Process{f.Router}, f.Bots...) {
		if _, err := f.Scrape(ctx, p); err != nil {
			t.Error(err)
		}
	}
	if err := f.Stop(ctx); err != nil {
		t.Error(err)
	}
}
