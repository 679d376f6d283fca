package sqlitequeue_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// shell is a service over a file, and an attacker with the sqlite3 shell.
type shell struct {
	*testing.T
	attacker *sqliteattack.Attacker
	broker   *sqlitequeue.Broker
	client   *queue.Client
	rejected []*queue.RejectedError
	receiver *queue.Receiver
}

func newShell(t *testing.T) *shell {
	ctx := t.Context()
	dir := t.TempDir()
	s := &shell{T: t}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	s.broker, err = sqlitequeue.Open(ctx, filepath.Join(dir, "queue.db"), nil)
	check(err)
	store, err := sqlitereplay.Open(ctx, filepath.Join(dir, "nonces.db"), nil)
	check(err)
	key, err := keys.New("k1", bytes.Repeat([]byte{7}, 32), nil)
	check(err)
	ring, err := keys.NewRing(key)
	check(err)
	check(ring.SetCurrent("k1"))
	o := queue.Strict(ring, store)
	o.Logger = slog.New(slog.DiscardHandler)
	o.OnRejected = func(_ context.Context, r *queue.RejectedError) { s.rejected = append(s.rejected, r) }
	s.client, err = queue.New(s.broker, o)
	check(err)
	s.receiver, err = s.client.Receiver(ctx, "bots", &queue.ReceiverOptions{Wait: time.Second})
	check(err)
	s.attacker, err = sqliteattack.Open(s.broker.Path())
	check(err)
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(s.attacker.Close(), s.client.Close(ctx), store.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *shell) send(name string, m *queue.Message) {
	s.Helper()
	sender, err := s.client.Sender(s.Context(), name, nil)
	if err != nil {
		s.Fatal(err)
	}
	if _, err := sender.Send(s.Context(), m); err != nil {
		s.Fatal(err)
	}
}

// drain receives until nothing comes, completes what does, and returns the IDs.
func (s *shell) drain() (ids []string) {
	s.Helper()
	for {
		got, err := s.receiver.Receive(s.Context(), 10)
		if errors.Is(err, queue.ErrNoMessage) {
			return ids
		}
		if err != nil {
			s.Fatal(err)
		}
		for _, d := range got {
			ids = append(ids, d.ID)
			if err := d.Complete(s.Context()); err != nil {
				s.Fatal(err)
			}
		}
	}
}

// TestShell types statements into the sqlite3 shell while messages wait. Each
// must end in a dead letter, unless it changes nothing that counts, and in no delivery
// of what was touched.
func TestShell(t *testing.T) {
	t.Parallel()
	copyRow := []string{
		`INSERT INTO contents SELECT id + 1000, message_id, correlation_id, content_type, attributes, trace, sealed, not_before, ttl, dedup_id, body FROM contents`,
		`INSERT INTO messages (queue, seq, state, deliveries, max_deliveries, enqueued, content, session)
			SELECT queue, seq + 1000, 0, 0, 0, enqueued, content + 1000, session FROM messages`,
	}
	for name, c := range map[string]struct {
		statements []string
		want       error
		delivered  int
	}{
		"body":                  {[]string{`UPDATE contents SET body = CAST(substr(body, 1, length(body) - 8) || x'0000000000000000' AS BLOB)`}, queue.ErrAuthenticationFailed, 0},
		"body cut":              {[]string{`UPDATE contents SET body = substr(body, 1, 40)`}, queue.ErrInvalidEnvelope, 0},
		"body emptied":          {[]string{`UPDATE contents SET body = x''`}, queue.ErrInvalidEnvelope, 0},
		"body replaced":         {[]string{`UPDATE contents SET sealed = 0, body = CAST('{"action":"opened"}' AS BLOB)`}, queue.ErrUnencryptedMessage, 0},
		"message ID":            {[]string{`UPDATE contents SET message_id = 'other'`}, queue.ErrAuthenticationFailed, 0},
		"correlation ID":        {[]string{`UPDATE contents SET correlation_id = 'other'`}, queue.ErrAuthenticationFailed, 0},
		"correlation ID gone":   {[]string{`UPDATE contents SET correlation_id = NULL`}, queue.ErrAuthenticationFailed, 0},
		"content type":          {[]string{`UPDATE contents SET content_type = 'text/html'`}, queue.ErrAuthenticationFailed, 0},
		"attribute":             {[]string{`UPDATE contents SET attributes = CAST(replace(attributes, 'push', 'pull') AS BLOB)`}, queue.ErrAuthenticationFailed, 0},
		"attributes gone":       {[]string{`UPDATE contents SET attributes = NULL`}, queue.ErrAuthenticationFailed, 0},
		"attributes broken":     {[]string{`UPDATE contents SET attributes = x'ff'`}, nil, 0},
		"session":               {[]string{`UPDATE messages SET session = 'pr-8'`}, queue.ErrAuthenticationFailed, 0},
		"session gone":          {[]string{`UPDATE messages SET session = NULL`}, queue.ErrAuthenticationFailed, 0},
		"contents gone":         {[]string{`DELETE FROM contents`}, nil, 0},
		"time of sending":       {[]string{`UPDATE messages SET enqueued = 0, deliveries = 5`}, nil, 1},
		"from another queue":    {[]string{`UPDATE messages SET queue = (SELECT id FROM queues WHERE name = 'bots')`}, queue.ErrAuthenticationFailed, 0},
		"row copied":            {copyRow, nil, 1}, // the copy is completed: it says nothing new
		"row copied to another": {append(copyRow, `UPDATE contents SET message_id = 'other' WHERE id > 1000`), queue.ErrAuthenticationFailed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShell(t)
				// Once a message opened under the key, what does not is forged.
				s.send("bots", &queue.Message{ID: "proof", Body: []byte("proof")})
				if got := s.drain(); len(got) != 1 {
					t.Fatalf("delivered: %q, want the proof", got)
				}
				to := "bots"
				if name == "from another queue" {
					to = "others"
				}
				s.send(to, &queue.Message{
					ID: "m1", SessionID: "pr-7", CorrelationID: "c1", ContentType: "application/json",
					Attributes: map[string]string{"event": "push"}, Body: []byte(`{"action":"closed"}`),
				})
				for _, statement := range c.statements {
					n, err := s.attacker.Exec(t.Context(), statement)
					if err != nil || n == 0 {
						t.Fatalf("%s: %d rows, %v", statement, n, err)
					}
				}
				got := s.drain()
				if len(got) != c.delivered {
					t.Errorf("delivered: %q, want %d", got, c.delivered)
				}
				rejected := len(s.rejected)
				if c.want == nil && c.delivered == 1 {
					if rejected != 0 {
						t.Errorf("%d messages were rejected: %v", rejected, s.rejected)
					}
					return
				}
				if rejected != 1 {
					t.Fatalf("%d messages were rejected, want 1", rejected)
				}
				if c.want != nil && !errors.Is(s.rejected[0], c.want) {
					t.Errorf("rejected with %v, want %v", s.rejected[0], c.want)
				}
				t.Log(s.rejected[0])
				st, err := s.stats()
				if err != nil || st != 1 {
					t.Errorf("%d dead letters, %v; want 1: nothing is dropped", st, err)
				}
			})
		})
	}
}

// stats counts the dead letters of bots.
func (s *shell) stats() (int64, error) {
	q, err := s.broker.Open(s.Context(), "bots", nil)
	if err != nil {
		return 0, err
	}
	st, err := q.Stats(s.Context())
	return st.DeadLetters, errors.Join(err, q.Close(s.Context()))
}
