package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/hooks"
)

func TestMain(m *testing.M) {
	fleet.Become()
	os.Exit(m.Run())
}

// The whole show, smaller: everything is as it was sent, and each edit becomes what
// it must.
func TestPlay(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var logs bytes.Buffer // of the programs, which have ended when play has
	r, err := play(ctx, &fleet.Options{Dir: t.TempDir(), Logs: &logs}, 12, 2*time.Minute)
	defer func() {
		if t.Failed() {
			all := bytes.Split(bytes.TrimSpace(logs.Bytes()), []byte("\n"))
			t.Logf("the end of the programs' %d lines:\n%s", len(all), bytes.Join(all[max(0, len(all)-200):], []byte("\n")))
		}
	}()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Faults {
		t.Error(f)
	}
	if len(r.Webhooks) != 12 || len(r.Attacks) != 3*(len(edits)+3) || len(r.Metrics) < 30 || len(r.Refused) != 5 || r.Repeats.Posted != 3 {
		t.Errorf("%d webhooks, %d attacks, %d metrics, %d refused, %d repeats", len(r.Webhooks), len(r.Attacks), len(r.Metrics), len(r.Refused), r.Repeats.Posted)
	}
	var out bytes.Buffer
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"task-tactician-1", "authentication_failed", "handled once already", "All of it is as it was sent."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("what is printed lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// If bots accept plaintext, the forged webhook reaches them, and the check finds that.
func TestPlayFindsForgery(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	o := &fleet.Options{Dir: t.TempDir(), BotEnv: []string{"PLAINTEXT=allow_with_alert"}}
	r, err := play(ctx, o, 12, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Join(r.Faults, "\n")
	for _, want := range []string{
		"an attacker who replaces it by plaintext: is not settled, want plaintext_rejected",
		`queue_messages_received_total{encrypted="false",queue="task-tactician"} is 1, want 0`,
	} {
		if !strings.Contains(found, want) {
			t.Errorf("the faults lack %q", want)
		}
	}
	var out bytes.Buffer
	if err := r.print(&out); err != nil || !strings.Contains(out.String(), "What differs:") {
		t.Errorf("%v, %s", err, out.String())
	}
}

// However few are chosen, each bot gets one.
func TestSome(t *testing.T) {
	t.Parallel()
	all, err := hooks.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := len(fleet.Queues); n < len(all); n++ {
		chosen := some(all, n)
		if len(chosen) != n {
			t.Fatalf("%d webhooks, want %d", len(chosen), n)
		}
		seen := make(map[string]bool)
		for _, h := range chosen {
			if seen[h.Delivery] {
				t.Errorf("of %d, one comes twice", n)
			}
			seen[h.Delivery] = true
		}
		for _, prefix := range prefixes {
			if !slices.ContainsFunc(chosen, func(h hooks.Hook) bool { return strings.HasPrefix(h.Event, prefix) }) {
				t.Errorf("of %d, none is %s", n, prefix)
			}
		}
	}
	for _, n := range []string{"1", "-1"} {
		if err := run(t.Context(), []string{"--count", n}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "--count") {
			t.Errorf("--count %s: %v", n, err)
		}
	}
}
