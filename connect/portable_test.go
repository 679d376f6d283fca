package connect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/testbed/postgres"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// The queues that every environment has: the one that messages are sealed for,
// and one that they are moved to.
const (
	portableQueue = "orders"
	foreignQueue  = "elsewhere"
)

// environment is a broker with an application on it, which has the same key in
// every environment.
type environment struct {
	name    string
	missing error // why it cannot be had here

	sender            *queue.Sender
	receiver, foreign *queue.Receiver // of the two queues
	raw, rawForeign   driver.Queue    // what a bridge without a key has of them
}

// TestPortable seals a message on each broker and carries it to each other one
// without a key: it opens there, with all that the sender bound, for a receiver with
// the same key and queue name, and for no other.
func TestPortable(t *testing.T) {
	key, err := keys.Generate("k1", nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	store, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := queue.Strict(ring, store)
	o.Crypto.MaxMessageAge = time.Hour // not every broker tells how long it keeps messages
	o.Logger = slog.New(slog.DiscardHandler)
	all := environments(t, o)
	for _, from := range all {
		for _, to := range all {
			if from == to {
				continue
			}
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				if err := errors.Join(from.missing, to.missing); err != nil {
					if os.Getenv("QRT_REQUIRE_PEERS") == "1" {
						t.Fatal(err)
					}
					t.Skip(err)
				}
				for _, session := range []string{"", "acme/api#42 ä"} {
					port(t, from, to, session)
				}
			})
		}
	}
}

// port carries one message.
func port(t *testing.T, from, to *environment, session string) {
	t.Helper()
	ctx := t.Context()
	m := &queue.Message{
		ID:            fmt.Sprintf("übergabe/%s-%s-%t", from.name, to.name, session == ""),
		SessionID:     session,
		CorrelationID: "72d3162e-cc78-11e3-81ab-4c9367dc0958",
		ContentType:   "application/json; charset=utf-8",
		Attributes:    map[string]string{"event": "pull_request", "empty": "", "a name with spaces": "☃ and \x01", "Mixed-Case.name": "x"},
		Body:          []byte(`{"action":"opened","number":42}` + "\x00\xff"),
		TTL:           time.Hour,
	}
	sent, err := from.sender.Send(ctx, m)
	if !from.carries(session) {
		if !refused(err) {
			t.Fatalf("a message with session %q, which %s cannot have: %v", session, from.name, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("send: %v", err)
	}
	if !to.carries(session) {
		if err := carry(ctx, m.Body, from.raw, to.raw); !refused(err) {
			t.Fatalf("carrying a message with session %q, which %s cannot have: %v", session, to.name, err)
		}
		from.expect(t, m, sent.KeyID) // it is where it was, and whole
		return
	}
	if err := carry(ctx, m.Body, from.raw, to.raw, to.rawForeign); err != nil {
		t.Fatalf("carry: %v", err)
	}
	to.expect(t, m, sent.KeyID)

	d, err := receive(ctx, to.foreign)
	var rejected *queue.RejectedError
	if !errors.As(err, &rejected) || !errors.Is(err, queue.ErrAuthenticationFailed) {
		t.Fatalf("in a queue of another name: %v, %v, want ErrAuthenticationFailed", d, err)
	}
	if rejected.MessageID != m.ID || rejected.Disposition != driver.DeadLettered || rejected.SettleErr != nil {
		t.Errorf("in a queue of another name: %+v, want message %s dead-lettered", rejected, m.ID)
	}
}

// carries reports whether the environment's queue can have messages of that
// session, "" for none.
func (e *environment) carries(session string) bool {
	c := e.receiver.Capabilities()
	switch {
	case session == "":
		return !c.SessionOnly
	case c.Sessions == driver.None:
		return e.name == "sb" // which keeps the name all the same
	}
	return true
}

func refused(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, driver.ErrInvalid)
}

// expect receives m as the application does.
func (e *environment) expect(t *testing.T, m *queue.Message, key keys.ID) {
	t.Helper()
	d, err := receive(t.Context(), e.receiver)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	if !d.Encrypted || d.KeyID != key || d.Origin != portableQueue || time.Since(d.EncryptedAt).Abs() > time.Minute {
		t.Errorf("encrypted %t under %q for %q at %s", d.Encrypted, d.KeyID, d.Origin, d.EncryptedAt)
	}
	if d.ID != m.ID || d.SessionID != m.SessionID || d.CorrelationID != m.CorrelationID || d.ContentType != m.ContentType {
		t.Errorf("%q, %q, %q, %q arrived of %q, %q, %q, %q", d.ID, d.SessionID, d.CorrelationID, d.ContentType, m.ID, m.SessionID, m.CorrelationID, m.ContentType)
	}
	if (d.TTL - m.TTL).Abs() > time.Millisecond {
		t.Errorf("TTL %s, want %s", d.TTL, m.TTL)
	}
	if !maps.Equal(d.Attributes, m.Attributes) || len(d.Unauthenticated) > 0 {
		t.Errorf("attributes %q and unauthenticated %q, want %q", d.Attributes, d.Unauthenticated, m.Attributes)
	}
	if !bytes.Equal(d.Body, m.Body) {
		t.Errorf("body %q, want %q", d.Body, m.Body)
	}
}

// receive takes one message off the queue, by a session where there is no other
// way.
func receive(ctx context.Context, r *queue.Receiver) (d *queue.Delivery, err error) {
	one := r.ReceiveOne
	if r.Capabilities().SessionOnly {
		s, err := r.NextSession(ctx)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.Close(ctx)) }()
		one = s.ReceiveOne
	}
	if d, err = one(ctx); err != nil {
		return nil, err
	}
	return d, d.Complete(ctx)
}

// carry does what a bridge between two brokers does: it takes what is stored,
// sends its body and properties on, and removes it once that is confirmed. What
// cannot be sent on stays. That it is the library's own kind of message it need
// not know.
func carry(ctx context.Context, secret []byte, from driver.Queue, to ...driver.Queue) (err error) {
	var source driver.Source = from
	if from.Capabilities().SessionOnly {
		s, err := from.AcceptSession(ctx, "", time.Minute)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Close(ctx)) }()
		source = s
	}
	got, err := source.Receive(ctx, 1, time.Minute)
	if err != nil {
		return err
	}
	if len(got) != 1 {
		return fmt.Errorf("%d messages to carry", len(got))
	}
	m := &got[0].Message
	if !envelope.IsSealed(m.Body) || bytes.Contains(m.Body, secret[:8]) {
		return errors.New("what is stored is not sealed")
	}
	settlement := driver.Settlement{Delivery: got[0], Kind: driver.Complete}
	for _, q := range to {
		result := q.Send(ctx, []*driver.Message{{
			ID: m.ID, SessionID: m.SessionID, CorrelationID: m.CorrelationID, ContentType: m.ContentType,
			Attributes: maps.Clone(m.Attributes), Body: m.Body,
		}})[0]
		if result.Err != nil {
			err, settlement.Kind = result.Err, driver.Abandon
			break
		}
	}
	return errors.Join(err, source.Settle(ctx, []driver.Settlement{settlement})[0])
}

// environments returns one of each driver, and of each kind of queue that it has.
func environments(t *testing.T, o *queue.Options) []*environment {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"PORTABLE_PLAIN": emulator(t, false), "PORTABLE_SESSIONS": emulator(t, true),
	} {
		t.Setenv(name, value)
	}
	all := []*environment{
		enter(t, "mem", "mem://", o),
		enter(t, "sqlite", sqlite(filepath.Join(t.TempDir(), "q.db")), o),
		enter(t, "sb", "sb:///?connection=PORTABLE_PLAIN", o),
		enter(t, "sb of sessions", "sb:///?connection=PORTABLE_SESSIONS&sessions=true", o),
	}
	all = append(all, enter(t, "postgres", postgres.Shared(t).URL("postgres", "postgres")+"?schema=portable", o))
	for name, fifo := range map[string]bool{"sqs": false, "sqs fifo": true} {
		endpoint, err := startFauxqs(t, fifo)
		if err != nil {
			all = append(all, &environment{name: name, missing: err})
			continue
		}
		all = append(all, enter(t, name, "sqs://us-east-1/?dead_letter_suffix=-dead&poll=1s&endpoint="+endpoint, o))
	}
	return all
}

func enter(t *testing.T, name, url string, o *queue.Options) *environment {
	t.Helper()
	ctx := t.Context()
	p, err := OpenBroker(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	c, err := queue.New(p, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("%s: close: %v", name, err)
		}
	})
	e := &environment{name: name}
	patient := &queue.ReceiverOptions{Wait: time.Minute}
	var errs [5]error
	e.sender, errs[0] = c.Sender(ctx, portableQueue, nil)
	e.receiver, errs[1] = c.Receiver(ctx, portableQueue, patient)
	e.foreign, errs[2] = c.Receiver(ctx, foreignQueue, patient)
	e.raw, errs[3] = p.Open(ctx, portableQueue, nil)
	e.rawForeign, errs[4] = p.Open(ctx, foreignQueue, nil)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return e
}

// emulator starts an emulator of Service Bus.
func emulator(t *testing.T, sessions bool) (connection string) {
	t.Helper()
	s, err := sbemulator.Start(&sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{RequiresSession: sessions}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.ConnectionString()
}

// startFauxqs starts an emulator of SQS with the queues of the test, each with a
// dead-letter queue. The error says that fauxqs is not installed.
func startFauxqs(t *testing.T, fifo bool) (endpoint string, err error) {
	t.Helper()
	server, err := fauxqs.Start(nil)
	if errors.Is(err, fauxqs.ErrNotInstalled) {
		return "", err
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	endpoint = server.URL()
	for _, name := range []string{portableQueue, portableQueue + "-dead", foreignQueue, foreignQueue + "-dead"} {
		attributes := map[string]string{}
		if fifo {
			name += ".fifo"
			attributes["FifoQueue"] = "true"
		}
		createQueue(t, endpoint, name, attributes)
	}
	return endpoint, nil
}

// createQueue makes a queue by SQS's JSON protocol (API Reference, CreateQueue),
// unsigned: fauxqs does not look.
func createQueue(t *testing.T, endpoint, name string, attributes map[string]string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"QueueName": name, "Attributes": attributes})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint+"/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "AmazonSQS.CreateQueue")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("CreateQueue %s: %s %s, %v", name, answer.Status, text, err)
	}
}
