package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/testbed/azurite"
	"github.com/queue-runtime/queue/testbed/dynalite"
	"github.com/queue-runtime/queue/testbed/redispeer"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// tableEnv is what the emulators of clouds take for credentials.
var tableEnv = map[string]string{
	"TABLE_KEY": azurite.Key, "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret-of-forty-characters-as-of-aws",
}

// sharedStore is a replay store that the bots of several machines share.
type sharedStore struct {
	url     string
	restart func() error
}

// sharedStores start the server of each.
var sharedStores = map[string]func(t *testing.T) sharedStore{
	"redis": func(t *testing.T) sharedStore {
		s := redispeer.New(t, map[string]string{"appendonly": "yes", "appendfsync": "always"})
		return sharedStore{s.URL(), func() error { return errors.Join(s.Kill(), s.Restart()) }}
	},
	"dynamodb": func(t *testing.T) sharedStore {
		s := dynalite.Serve(t, &dynalite.Options{Data: t.TempDir()})
		return sharedStore{"dynamodb://eu-west-1/replay?endpoint=" + s.URL(), func() error { return errors.Join(s.Kill(), s.Restart()) }}
	},
	"aztable": func(t *testing.T) sharedStore {
		s := azurite.Serve(t)
		// Killed it would lose what it has confirmed, as the service does not.
		return sharedStore{"aztable://" + azurite.Account + "/replay?key=TABLE_KEY&endpoint=" + s.Endpoint(), s.Restart}
	},
}

// The bots are two sets of processes that remember in one store what they handled. The broker
// replays everything that it ever stored, over and over, while bots are killed and the store
// is restarted: nothing is handled again.
func TestSharedStores(t *testing.T) {
	t.Parallel()
	rounds := 3
	if os.Getenv("QRT_SOAK") == "1" {
		rounds = 40
	}
	for name, open := range sharedStores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replayAll(t, open(t), rounds)
		})
	}
}

func replayAll(t *testing.T, store sharedStore, rounds int) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+time.Duration(rounds)*30*time.Second)
	defer cancel()
	if err := connect.InitReplayStore(ctx, store.url); err != nil {
		t.Fatal(err)
	}
	all, err := hooks.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"SESSION_IDLE=20ms", "NONCES_URL=" + store.url}
	for name, value := range tableEnv {
		env = append(env, name+"="+value)
	}
	f, err := fleet.Start(ctx, &fleet.Options{Dir: t.TempDir(), Lock: 2 * time.Second, Sets: 2, BotEnv: env})
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
	startAll(ctx, t, f.Bots)
	if err := f.Wait(ctx, func(t []consumer.Task) bool { return len(t) >= len(all) }); err != nil {
		t.Fatal(err)
	}
	replayed := 0
	for round := range rounds {
		for _, q := range fleet.Queues {
			replayed += len(stored[q])
			if err := attacker.Rewrite(ctx, q, func(now []driver.Message) []driver.Message { return append(now, stored[q]...) }); err != nil {
				t.Fatal(err)
			}
		}
		if round > 0 {
			var killed []*fleet.Process
			for _, p := range f.Bots {
				if rand.IntN(2) == 0 { //nolint:gosec // G404: which process, not a secret
					p.Kill()
					killed = append(killed, p)
				}
			}
			if err := store.restart(); err != nil {
				t.Fatal(err)
			}
			startAll(ctx, t, killed)
		}
		awaitEmpty(ctx, t, f, attacker, fmt.Sprintf("round %d of %d", round+1, rounds))
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
	t.Logf("%d webhooks were handled once, %d copies in %d rounds were not", len(done), replayed, rounds)
}

// startAll starts processes side by side.
func startAll(ctx context.Context, t *testing.T, all []*fleet.Process) {
	t.Helper()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() { errs[i] = p.Start(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// awaitEmpty returns when the queues are empty. If they are not in time it says what is left,
// and what the bots do.
func awaitEmpty(ctx context.Context, t *testing.T, f *fleet.Fleet, a *sqliteattack.Attacker, when string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		for _, q := range fleet.Queues {
			m, err := a.Read(ctx, q)
			if err != nil {
				t.Fatalf("%s: %v\n%s%s", when, err, leftIn(t, f), f.State())
			}
			left += len(m)
		}
		if left == 0 {
			return
		}
		if err := f.Fell(); err != nil {
			t.Fatalf("%s, %d messages are left: %v\n%s%s", when, left, err, leftIn(t, f), f.State())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s, %d messages are left\n%s%s", when, left, leftIn(t, f), f.State())
		}
	}
}

// leftIn says of each queue how many messages wait, are held and are dead.
func leftIn(t *testing.T, f *fleet.Fleet) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's time is over
	defer cancel()
	b, err := connect.OpenBroker(ctx, "sqlite://"+filepath.ToSlash(f.Database))
	if err != nil {
		return err.Error() + "\n"
	}
	defer func() { _ = b.Close(ctx) }()
	var text strings.Builder
	for _, name := range fleet.Queues {
		q, err := b.Open(ctx, name, nil)
		if err != nil {
			fmt.Fprintf(&text, "%s: %v\n", name, err)
			continue
		}
		s, err := q.Stats(ctx)
		fmt.Fprintf(&text, "%s: %+v, %v\n", name, s, err)
		_ = q.Close(ctx) // nothing was received
	}
	return text.String()
}
