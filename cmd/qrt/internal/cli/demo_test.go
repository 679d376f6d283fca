package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/cmd/qrt/internal/cli"
	"github.com/queue-runtime/queue/testbed/webhooks"
)

// demoReport is the contract of qrt demo --json, to the letter: an unknown name
// in the output, or a missing one, fails the test.
type demoReport struct {
	OK     *bool `json:"ok"`
	Lost   *int  `json:"lost"`
	Router *struct {
		Messages *int `json:"messages"`
		Bytes    *int `json:"bytes"`
		Queues   []struct {
			Queue     *string `json:"queue"`
			KeyID     *string `json:"key_id"`
			Sender    *string `json:"sender"`
			Sent      *int    `json:"sent"`
			Received  *int    `json:"received"`
			Encrypted *int    `json:"encrypted"`
		} `json:"queues"`
	} `json:"router"`
	Rotation *struct {
		Messages *int `json:"messages"`
		OldKey   *int `json:"old_key"`
		NewKey   *int `json:"new_key"`
		Lost     *int `json:"lost"`
	} `json:"rotation"`
	Attacks []struct {
		Name         *string `json:"name"`
		Attempts     *int    `json:"attempts"`
		Delivered    *int    `json:"delivered"`
		DeadLettered *int    `json:"dead_lettered"`
		Abandoned    *int    `json:"abandoned"`
		Refused      *int    `json:"refused"`
		Reason       *string `json:"error_type"`
	} `json:"attacks"`
	Policies []struct {
		Policy             *string `json:"policy"`
		PlaintextDelivered *int    `json:"plaintext_delivered"`
		PlaintextRejected  *int    `json:"plaintext_rejected"`
	} `json:"policies"`
	Throughput *struct {
		PlaintextPerSecond *float64 `json:"plaintext_per_s"`
		EncryptedPerSecond *float64 `json:"encrypted_per_s"`
		Pairs              *int     `json:"pairs"`
		Overhead           *float64 `json:"overhead_percent"`
		OverheadLow        *float64 `json:"overhead_low_percent"`
		OverheadHigh       *float64 `json:"overhead_high_percent"`
		SealNS             *float64 `json:"seal_ns"`
		OpenNS             *float64 `json:"open_ns"`
		Bytes              *int     `json:"bytes"`
	} `json:"throughput"`
}

// webhookBodies is the folder of real GitHub webhooks.
func webhookBodies(t *testing.T) string {
	t.Helper()
	folder, err := webhooks.Folder(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return folder
}

// runDemo runs the demonstration and decodes its report.
func (s *shell) runDemo(args ...string) *demoReport {
	t := s.t
	t.Helper()
	c := exec.CommandContext(t.Context(), s.qrt, append([]string{"demo", "--json"}, args...)...)
	var out, errs bytes.Buffer
	c.Dir, c.Env, c.Stdout, c.Stderr = s.home, s.env, &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %s%s", err, errs.String(), out.String())
	}
	if errs.Len() > 0 {
		t.Errorf("standard error has %q", errs.String())
	}
	var r demoReport
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("the report: %v", err)
	}
	if d.More() {
		t.Error("more than one object on standard output")
	}
	return &r
}

// check holds a report against what was asked for. It wants every attack to be tried,
// except lacks: those for which the broker lacks what they need.
func (r *demoReport) check(t *testing.T, messages, attempts int, lacks ...string) {
	t.Helper()
	if r.Router == nil || r.Rotation == nil || r.Throughput == nil || r.OK == nil || r.Lost == nil {
		t.Fatalf("parts of the report are missing: %+v", r)
	}
	if !*r.OK || *r.Lost != 0 || *r.Router.Messages != messages || *r.Router.Bytes <= 0 || len(r.Router.Queues) != 3 {
		t.Errorf("ok %v, lost %d, %d messages of %d bytes in %d queues", *r.OK, *r.Lost, *r.Router.Messages, *r.Router.Bytes, len(r.Router.Queues))
	}
	sent := 0
	keys := make(map[string]bool)
	for _, q := range r.Router.Queues {
		sent += *q.Sent
		keys[*q.KeyID] = true
		if *q.Sender != "webhook-router" {
			t.Errorf("messages of %s come from sender %q", *q.Queue, *q.Sender)
		}
		if *q.Received != *q.Sent || *q.Encrypted != *q.Sent || *q.Sent == 0 {
			t.Errorf("queue %s: %d sent, %d received, %d encrypted", *q.Queue, *q.Sent, *q.Received, *q.Encrypted)
		}
	}
	if sent != messages || len(keys) != 3 {
		t.Errorf("%d messages were sent under %d keys, want %d and 3", sent, len(keys), messages)
	}
	if o := r.Rotation; *o.Lost != 0 || *o.OldKey == 0 || *o.NewKey == 0 || *o.OldKey+*o.NewKey != *o.Messages {
		t.Errorf("rotation: %d old + %d new of %d, %d lost", *o.OldKey, *o.NewKey, *o.Messages, *o.Lost)
	}
	var names []string
	for _, a := range r.Attacks {
		names = append(names, *a.Name)
		if slices.Contains(lacks, *a.Name) {
			if *a.Attempts != 0 {
				t.Errorf("attack %s: %d attempts, although the broker lacks what it needs", *a.Name, *a.Attempts)
			}
			continue
		}
		if *a.Attempts < attempts || *a.Attempts != *a.Delivered+*a.DeadLettered+*a.Abandoned+*a.Refused {
			t.Errorf("attack %s: %d attempts, %d + %d + %d + %d outcomes, want at least %d", *a.Name, *a.Attempts, *a.Delivered, *a.DeadLettered, *a.Abandoned, *a.Refused, attempts)
		}
		allowed := slices.Contains([]string{"plaintext_allow", "plaintext_allow_with_alert", "unbound_attribute_added"}, *a.Name)
		if allowed != (*a.Delivered > 0) {
			t.Errorf("attack %s: %d were delivered", *a.Name, *a.Delivered)
		}
		if !allowed && *a.Reason == "" {
			t.Errorf("attack %s has no error type", *a.Name)
		}
	}
	if !slices.Equal(names, attacktest.Names()) {
		t.Errorf("attacks %v, want %v", names, attacktest.Names())
	}
	var policies []string
	for _, p := range r.Policies {
		policies = append(policies, *p.Policy)
		if (*p.Policy == "reject") != (*p.PlaintextDelivered == 0) || (*p.Policy == "reject") != (*p.PlaintextRejected > 0) {
			t.Errorf("policy %s: %d delivered, %d rejected", *p.Policy, *p.PlaintextDelivered, *p.PlaintextRejected)
		}
	}
	if !slices.Equal(policies, []string{"allow", "allow_with_alert", "reject"}) {
		t.Errorf("policies %v", policies)
	}
	if x := r.Throughput; *x.PlaintextPerSecond <= 0 || *x.EncryptedPerSecond <= 0 || *x.SealNS <= 0 || *x.OpenNS <= 0 || *x.Bytes <= 0 ||
		*x.Pairs < 6 || *x.OverheadLow > *x.Overhead || *x.OverheadHigh < *x.Overhead || *x.OverheadLow == *x.OverheadHigh {
		t.Errorf("throughput: %+v", *x)
	}
}

// TestDemoRealWebhooks runs it with the real bodies on a broker in memory, on one
// whose queues require sessions, and on one that shows a message only to its
// receiver.
func TestDemoRealWebhooks(t *testing.T) {
	t.Parallel()
	bodies := webhookBodies(t)
	for _, url := range []string{"mem://", "emulator://servicebus", "emulator://sqs"} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			s := newShell(t)
			var lacks []string
			if url == "emulator://sqs" {
				startFauxqs(t)                          // skips the test if it is not installed
				lacks = []string{"forge_session_state"} // SQS has no session state
			}
			r := s.runDemo("--broker", url, "--payloads", bodies, "--messages", "200", "--attempts", "10")
			r.check(t, 200, 10, lacks...)
		})
	}
}

func TestDemoDefault(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	dir := t.TempDir()
	s.env = append(s.env, "TMPDIR="+dir)
	r := s.runDemo("--messages", "60", "--attempts", "5")
	r.check(t, 60, 5)
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("it left %v behind", left)
	}
}

// TestDemoInterrupted: an interrupt ends it, with an error and nothing else.
func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := cli.Run(ctx, []string{"demo", "--broker", "mem://", "--messages", "60", "--json"}, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	if code != 1 || out.Len() > 0 || !strings.HasPrefix(errs.String(), `{"error":"interrupted","code":"interrupted",`) {
		t.Errorf("exit code %d, output %q, error %q", code, out.String(), errs.String())
	}
}
