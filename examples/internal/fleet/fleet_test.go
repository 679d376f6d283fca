package fleet_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
)

func TestMain(m *testing.M) {
	fleet.Become()
	for name, value := range tableEnv {
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// The real webhooks arrive, each whole, once, at the bot of its queue, under the
// key of that queue; and the programs end in order.
func TestFleet(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	all, err := hooks.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 48 {
		t.Fatalf("%d webhooks, want 48", len(all))
	}
	f, err := fleet.Start(ctx, &fleet.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sent := make(map[string]*hooks.Hook)
	for i := range all {
		h := &all[i]
		sent[h.Delivery] = h
		for range 2 { // the second is a repeat
			a, err := f.Post(ctx, h)
			if err != nil || a.Status != http.StatusAccepted {
				t.Fatalf("%s: %d %s, %v", h.Event, a.Status, a.Text, err)
			}
		}
	}
	if err := f.Wait(ctx, func(t []consumer.Task) bool { return len(t) >= len(all) }); err != nil {
		t.Fatal(err)
	}
	if err := f.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	tasks := f.Tasks()
	if len(tasks) != len(all) {
		t.Errorf("%d tasks, want %d", len(tasks), len(all))
	}
	for _, task := range tasks {
		h := sent[task.ID]
		if h == nil {
			t.Errorf("%s did a task that was not sent, or did it twice", task.Bot)
			continue
		}
		delete(sent, task.ID)
		if task.SHA256 != h.SHA256() || task.Event != h.Event {
			t.Errorf("%s: %s arrived changed", task.Bot, h.Event)
		}
		if !task.Encrypted || task.KeyID != task.Bot+"-1" {
			t.Errorf("%s: encrypted is %v, under key %q", task.Bot, task.Encrypted, task.KeyID)
		}
		want := ownerOf(h.Event)
		if want != "" && task.Bot != want {
			t.Errorf("%s went to %s", h.Event, task.Bot)
		}
	}
	if len(sent) > 0 {
		t.Errorf("%d webhooks did not arrive", len(sent))
	}
}

// ownerOf is the bot whose event it is, "" if it is no bot's.
func ownerOf(event string) string {
	switch {
	case strings.HasPrefix(event, "pull_request"):
		return "task-tactician"
	case strings.HasPrefix(event, "issue"):
		return "merge-warden"
	case event == "push":
		return "spec-sentinel"
	}
	return ""
}

// A program that does not come up says why, and leaves nothing behind.
func TestStartFails(t *testing.T) {
	t.Parallel()
	_, err := fleet.Start(t.Context(), &fleet.Options{Dir: t.TempDir(), BotEnv: []string{"CONCURRENCY=no"}})
	if err == nil || !strings.Contains(err.Error(), "CONCURRENCY is not a whole number") {
		t.Errorf("%v, want an error that names CONCURRENCY", err)
	}
}

// A wait fails at once when a program has ended by itself, and says of all what they do. One
// that was told to end is no failure.
func TestFell(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f, err := fleet.Start(ctx, &fleet.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	never := func([]consumer.Task) bool { return false }
	f.Bots[1].Kill()
	over, end := context.WithCancel(ctx)
	end()
	if err := f.Wait(over, never); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "merge-warden has ended (signal: killed)") {
		t.Errorf("a wait that ended: %v", err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- f.Wait(ctx, never) }()
	if err := f.Bots[2].Fall(); err != nil {
		t.Fatal(err)
	}
	err = <-waiting
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a program that ended by itself: %v", err)
	}
	for _, want := range []string{"spec-sentinel ended by itself", "task-tactician runs", `"msg":"Ready"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
}
