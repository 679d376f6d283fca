package redisreplay_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// calls returns how often the server was asked to run a command, by its own statistics.
func calls(t testing.TB, s *redispeer.Server, command string) int {
	t.Helper()
	stats, err := s.Do(t.Context(), "INFO", "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(stats) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
			n, _, _ := strings.Cut(rest, ",")
			k, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
	}
	return 0
}

// TestRequests: Begin and Finish of 32 messages are one request each, counted at the
// server: one script and one WAIT in a pipeline.
func TestRequests(t *testing.T) {
	primary := redispeer.New(t, nil)
	redispeer.Replica(t, primary, nil)
	s := open(t, primary.URL(), patient)
	handle(t, s, messages(1, 1, 32)...)
	const rounds = 20
	count := func(do func(r []replay.Request)) (scripts, waits int) {
		t.Helper()
		for i := range uint64(rounds) {
			r := messages(1, 33+32*i, 32)
			scripts -= calls(t, primary, "evalsha") + calls(t, primary, "eval")
			waits -= calls(t, primary, "wait")
			do(r)
			scripts += calls(t, primary, "evalsha") + calls(t, primary, "eval")
			waits += calls(t, primary, "wait")
			if _, err := consume(s, r...); err != nil {
				t.Fatal(err)
			}
		}
		return scripts, waits
	}
	var all [][]replay.Request
	scripts, waits := count(func(r []replay.Request) {
		c, err := s.Begin(t.Context(), group, r)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c {
			if c[i].Err != nil || c[i].Gap {
				t.Fatalf("sequence %d: %+v", r[i].ID.Sequence, c[i])
			}
		}
		all = append(all, r)
	})
	if scripts != rounds || waits != rounds {
		t.Errorf("%d calls of Begin: %d scripts and %d waits, want as many", rounds, scripts, waits)
	}
	for name, do := range map[string]func(r []replay.Request) error{
		"Finish": func(r []replay.Request) error { _, err := consume(s, r...); return err },
		"a new stream": func([]replay.Request) error {
			_, err := begin(s, message(9, 1))
			return err
		},
	} {
		before := calls(t, primary, "evalsha")
		if err := do(all[0]); err != nil {
			t.Fatal(err)
		}
		if n := calls(t, primary, "evalsha") - before; n != 1 {
			t.Errorf("%s: %d scripts, want 1", name, n)
		}
	}
	// Another process that knows nothing asks once more.
	other := open(t, primary.URL(), patient)
	before := calls(t, primary, "evalsha")
	handle(t, other, messages(1, 33+32*rounds, 32)...)
	if n := calls(t, primary, "evalsha") - before; n != 3 {
		t.Errorf("Begin and Finish of another process: %d scripts, want 3", n)
	}
}
