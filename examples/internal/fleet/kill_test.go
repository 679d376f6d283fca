package fleet_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// allRounds are those with QRT_SOAK=1, and of the benchmark.
const allRounds = 50

// killed is what came of a run.
type killed struct {
	sent, answered, handled, repeated, kills int
}

// The router and the bots are killed at random while webhooks come: whatever was
// answered with 2xx is handled, as it was sent, by its bot.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := someRounds
	if os.Getenv("QRT_SOAK") == "1" {
		rounds = allRounds
	}
	k := kill(t, rounds)
	t.Logf("%d rounds: %d kills, %d webhooks sent, %d answered 202, %d handled, %d of them more than once",
		rounds, k.kills, k.sent, k.answered, k.handled, k.repeated)
}

// BenchmarkKilled is TestKilled with all rounds.
func BenchmarkKilled(b *testing.B) {
	for b.Loop() {
		k := kill(b, allRounds)
		b.ReportMetric(float64(k.kills), "kills")
		b.ReportMetric(float64(k.answered), "answered")
		b.ReportMetric(float64(k.handled), "handled")
		b.ReportMetric(float64(k.repeated), "repeated")
		b.ReportMetric(float64(k.answered-k.handled), "lost")
	}
}

func kill(t testing.TB, rounds int) (k killed) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rounds)*10*time.Second+5*time.Minute)
	defer cancel()
	all, err := hooks.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.Start(ctx, &fleet.Options{Dir: t.TempDir(), Lock: 2 * time.Second, BotEnv: []string{"SESSION_IDLE=20ms"}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	// GitHub: as long as the rounds last, one webhook after the other. What is not
	// answered with 2xx is sent once more, as the same delivery.
	var mu sync.Mutex // guards what follows
	sent, answered := make(map[string]*hooks.Hook), make(map[string]bool)
	over := make(chan struct{})
	var senders sync.WaitGroup
	for i := range 4 {
		senders.Go(func() {
			pause := time.NewTicker(4 * time.Millisecond)
			defer pause.Stop()
			var failed *hooks.Hook
			for n := i; ; n++ {
				select {
				case <-over:
					return
				case <-pause.C:
				}
				h := failed
				if failed = nil; h == nil {
					fresh := all[n%len(all)].Again()
					h = &fresh
					mu.Lock()
					sent[h.Delivery] = h
					mu.Unlock()
				}
				a, err := f.Post(ctx, h)
				switch {
				case err == nil && a.Status == http.StatusAccepted:
					mu.Lock()
					answered[h.Delivery] = true
					mu.Unlock()
				case n%2 == 0:
					failed = h // of the others it is open whether they are handled
				}
			}
		})
	}

	processes := append([]*fleet.Process{f.Router}, f.Bots...)
	for range rounds {
		wait := time.NewTimer(time.Duration(20+random.IntN(180)) * time.Millisecond)
		<-wait.C
		var victims []*fleet.Process
		for _, p := range processes {
			if random.IntN(3) == 0 {
				victims = append(victims, p)
			}
		}
		if len(victims) == 0 {
			victims = append(victims, processes[random.IntN(len(processes))])
		}
		var killing sync.WaitGroup
		for _, p := range victims {
			killing.Go(p.Kill)
		}
		killing.Wait()
		k.kills += len(victims)
		for _, p := range victims {
			if err := p.Start(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(over)
	senders.Wait()

	handled := make(map[string]int)
	err = f.Wait(ctx, func(tasks []consumer.Task) bool {
		clear(handled)
		for _, task := range tasks {
			handled[task.ID]++
		}
		for id := range answered {
			if handled[id] == 0 {
				return false
			}
		}
		return true
	})
	k.sent, k.answered = len(sent), len(answered)
	for id := range answered {
		if handled[id] > 0 {
			k.handled++
		}
		if handled[id] > 1 {
			k.repeated++
		}
	}
	if err != nil {
		t.Errorf("%d webhooks were answered with 202 and not handled: %v", k.answered-k.handled, err)
	}
	for _, task := range f.Tasks() {
		h := sent[task.ID]
		switch {
		case h == nil:
			t.Errorf("%s did a task that was not sent", task.Bot)
		case task.SHA256 != h.SHA256() || task.Event != h.Event || !task.Encrypted:
			t.Errorf("%s: %s arrived changed", task.Bot, h.Event)
		case ownerOf(h.Event) != "" && ownerOf(h.Event) != task.Bot:
			t.Errorf("%s went to %s", h.Event, task.Bot)
		}
	}
	if err := f.Stop(ctx); err != nil {
		t.Error(err)
	}
	attacker, err := sqliteattack.Open(f.Database)
	if err != nil {
		t.Fatal(err)
	}
	defer attacker.Close() //nolint:errcheck // the file goes with the test
	for _, q := range fleet.Queues {
		dead, why, err := attacker.DeadLetters(ctx, q)
		if err != nil {
			t.Error(err)
		}
		for i := range dead {
			t.Errorf("%s: a webhook became a dead letter: %s", q, why[i].Reason)
		}
	}
	return k
}
