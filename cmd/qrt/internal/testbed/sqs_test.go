package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// TestMain tells the tests where a clone has fauxqs.
func TestMain(m *testing.M) {
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "aws", "testdata", "fauxqs"))
	if err == nil {
		err = os.Setenv(FauxqsFolder, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(m.Run())
}

func haveFauxqs() bool {
	_, err := fauxqsHome()
	_, nerr := exec.LookPath("node")
	return errors.Join(err, nerr) == nil
}

// needFauxqs skips a test where fauxqs is not installed, and with
// QRT_REQUIRE_PEERS=1 fails it.
func needFauxqs(t *testing.T) {
	t.Helper()
	switch {
	case haveFauxqs():
	case os.Getenv("QRT_REQUIRE_PEERS") == "1":
		t.Fatal("fauxqs is not installed: run npm ci --prefix aws/testdata/fauxqs")
	default:
		t.Skip("fauxqs is not installed: run npm ci --prefix aws/testdata/fauxqs")
	}
}

// TestSQSAttackerOrder: on a FIFO queue, where a message blocks the next of its
// group, the attacker finds all, leaves them in order, and changes one alone.
func TestSQSAttackerOrder(t *testing.T) {
	t.Parallel()
	b := bed(t, SQSEmulatorURL)
	ctx := t.Context()
	name, err := b.NewQueue(ctx, "a purpose with spaces", drivertest.QueueSpec{Sessions: true})
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(ctx) //nolint:errcheck // the bed goes with the test
	q, err := p.Open(ctx, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	var sent []*driver.Message
	for i := range 25 { // of three groups, more than one request takes
		sent = append(sent, &driver.Message{ID: fmt.Sprint(i), SessionID: fmt.Sprint("s", i%3), Body: fmt.Appendf(nil, "body %d", i), Attributes: map[string]string{"n": fmt.Sprint(i)}})
	}
	for chunk := range slices.Chunk(sent, 10) {
		for _, r := range q.Send(ctx, chunk) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	check := func(all []driver.Message, changed string) {
		t.Helper()
		last := make(map[string]int)
		for _, m := range all {
			i := slices.IndexFunc(sent, func(s *driver.Message) bool { return s.ID == m.ID })
			if i < 0 || m.SessionID != sent[i].SessionID || m.Attributes["n"] != fmt.Sprint(i) {
				t.Fatalf("found %+v", m)
			}
			if want := string(sent[i].Body); string(m.Body) != want && m.ID != changed {
				t.Errorf("message %s has the body %q, want %q", m.ID, m.Body, want)
			}
			if before, ok := last[m.SessionID]; ok && before > i {
				t.Errorf("message %d of session %s comes after %d", i, m.SessionID, before)
			}
			last[m.SessionID] = i
		}
		if len(all) != len(sent) {
			t.Errorf("%d messages, want %d", len(all), len(sent))
		}
	}
	for range 2 {
		all, err := b.Attacker.Read(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		check(all, "")
	}
	err = b.Attacker.Rewrite(ctx, name, func(all []driver.Message) []driver.Message {
		all[4].Body = nil
		all[4].ID = "7"
		return slices.DeleteFunc(all, func(m driver.Message) bool { return m.ID == "7" && m.Body != nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := b.Attacker.Read(ctx, name)
	if i := slices.IndexFunc(all, func(m driver.Message) bool { return m.ID == "7" }); err != nil || len(all) != len(sent)-1 || i < 0 || len(all[i].Body) != 0 {
		t.Errorf("%d messages, number 7 at %d, %v", len(all), i, err)
	}
	if _, err := b.Attacker.Read(ctx, "never-made"); err == nil {
		t.Error("a queue that was not made here was read")
	}
}

// TestSQSAttackerEnds: an attacker who is told to stop while he waits puts back
// what he took.
func TestSQSAttackerEnds(t *testing.T) {
	t.Parallel()
	b := bed(t, SQSEmulatorURL)
	name, err := b.NewQueue(t.Context(), "x", drivertest.QueueSpec{})
	if err != nil {
		t.Fatal(err)
	}
	err = b.Attacker.Rewrite(t.Context(), name, func([]driver.Message) []driver.Message {
		return []driver.Message{{ID: "1", Body: []byte("one")}, {ID: "2", Body: []byte("two")}}
	})
	if err != nil {
		t.Fatal(err)
	}
	a := b.Attacker.(sqsAttacker)
	k, err := a.made.kind(name)
	if err != nil {
		t.Fatal(err)
	}
	// Somebody holds one, so that the attacker waits with the other in hands.
	held, err := a.made.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: k.url, MaxNumberOfMessages: 1, VisibilityTimeout: 600})
	if err != nil || len(held.Messages) != 1 {
		t.Fatalf("%v", err)
	}
	stop, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := b.Attacker.Read(stop, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an ended context: %v", err)
	}
	if got, err := b.Attacker.Read(t.Context(), name); err != nil || len(got) != 1 {
		t.Errorf("%d messages, %v", len(got), err)
	}
}

func TestLoopback(t *testing.T) {
	for url, want := range map[string]bool{
		"": false, "http://127.0.0.1:4566": true, "http://[::1]:1": true, "http://localhost:1/": true, "https://localhost.example.com": false,
		"https://sqs.eu-west-1.amazonaws.com": false, "http://127.0.0.1.example.com": false, "http://10.0.0.1": false, "%": false,
	} {
		if got := loopback(aws.String(url)); got != want {
			t.Errorf("loopback(%q) = %v", url, got)
		}
	}
	if loopback(nil) {
		t.Error("no endpoint at all is AWS's own")
	}
}

// TestConsent: a bed that would make queues where somebody has others says so.
func TestConsent(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	for url, want := range map[string]bool{"sqs://eu-west-1/": true, "sqs://eu-west-1/?endpoint=http://127.0.0.1:1": false, "mem://": false, Temporary: false} {
		if b := bed(t, url); (b.Consent != "") != want {
			t.Errorf("%q: consent %q", url, b.Consent)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")
	if b := bed(t, "sqs://eu-west-1/"); b.Consent != "" {
		t.Errorf("an endpoint of the environment on this machine: consent %q", b.Consent)
	}
	file := "sqlite://" + filepath.ToSlash(filepath.Join(t.TempDir(), "queue.db"))
	b := bed(t, file)
	if b.Consent != "" {
		t.Errorf("a new file: consent %q", b.Consent)
	}
	if _, err := b.NewQueue(t.Context(), "orders", drivertest.QueueSpec{}); err != nil {
		t.Fatal(err)
	}
	if b := bed(t, file); !strings.Contains(b.Consent, "queue.db") {
		t.Errorf("a file with queues: consent %q", b.Consent)
	}
}

// TestFauxqsMissing: what is needed is said, and nothing is left running.
func TestFauxqsMissing(t *testing.T) {
	t.Setenv(FauxqsFolder, t.TempDir())
	if _, err := Open(t.Context(), SQSEmulatorURL); err == nil || !strings.Contains(err.Error(), "npm") {
		t.Errorf("%v", err)
	}
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("QRT_REQUIRE_PEERS") == "1" {
			t.Fatal("node is not on the PATH: install node 20 or later")
		}
		t.Skip("node is not on the PATH")
	}
	broken := t.TempDir()
	if err := os.MkdirAll(filepath.Join(broken, "node_modules", "fauxqs"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv(FauxqsFolder, broken)
	if _, err := Open(t.Context(), SQSEmulatorURL); err == nil || !strings.Contains(err.Error(), "did not start") {
		t.Errorf("%v", err)
	}
	t.Setenv("PATH", "")
	if _, err := Open(t.Context(), SQSEmulatorURL); err == nil || !strings.Contains(err.Error(), "node") {
		t.Errorf("%v", err)
	}
}
