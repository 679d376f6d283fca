package postgresqueue_test

import (
	"strings"
	"testing"

	"github.com/queue-runtime/queue/driver"
)

// TestPlantedContents: what was planted into the tables and is larger than any message, or
// than the message says, is not read into memory. It is undecodable, can be dead-lettered,
// and holds up no other message, also in a session.
func TestPlantedContents(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"body":                    `UPDATE {s}.content SET body = decode(repeat('00', 1 << 20), 'hex') WHERE message_id = 'large'`,
		"body of its size":        `WITH c AS (UPDATE {s}.content SET body = decode(repeat('00', 65 << 20), 'hex') WHERE message_id = 'large' RETURNING id) UPDATE {s}.message SET size = 65 << 20 FROM c WHERE content = c.id`,
		"attributes":              `UPDATE {s}.content SET attributes = decode(repeat('00', 2 << 20), 'hex') WHERE message_id = 'large'`,
		"the type of its content": `UPDATE {s}.content SET type = repeat('x', 2 << 20) WHERE message_id = 'large'`,
	} {
		for _, session := range []string{"", "s"} {
			t.Run(name+", session "+session, func(t *testing.T) {
				t.Parallel()
				rawURL, schema := newSchema(t, "")
				q := openQueue(t, rawURL)
				send(t, q, &driver.Message{ID: "large", SessionID: session, Body: []byte("x")}, &driver.Message{ID: "small", SessionID: session, Body: []byte("y")})
				sql(t, strings.ReplaceAll(statement, "{s}", schema))
				seen, _, err := q.Peek(t.Context(), "", 10)
				if err != nil || len(seen) == 0 || !seen[0].Undecodable || len(seen[0].Body) > 0 {
					t.Fatalf("Peek: %d messages, %v", len(seen), err)
				}
				s, err := q.AcceptSession(t.Context(), "", 0)
				if err != nil {
					t.Fatal(err)
				}
				got, err := s.Receive(t.Context(), 1, 0)
				if err != nil || len(got) != 1 || !got[0].Undecodable || len(got[0].Body) > 0 {
					t.Fatalf("Receive in a session: %d messages, %v", len(got), err)
				}
				if err := s.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				all, err := q.Receive(t.Context(), 1, 0)
				if err != nil || len(all) != 1 || !all[0].Undecodable || len(all[0].Body) > 0 {
					t.Fatalf("Receive: %d messages, %v", len(all), err)
				}
				dead := driver.Settlement{Delivery: all[0], Kind: driver.MoveToDeadLetter, Reason: "r"}
				if err := q.Settle(t.Context(), []driver.Settlement{dead})[0]; err != nil {
					t.Errorf("dead-lettering it: %v", err)
				}
				if all, err = q.Receive(t.Context(), 2, 0); err != nil || len(all) != 1 || string(all[0].Body) != "y" {
					t.Errorf("Receive: %d messages, %v; want the one behind it", len(all), err)
				}
			})
		}
	}
}

// TestPlantedNumbers: times that are infinite, and a count of deliveries that cannot be added
// to, hold up no message, and Peek, Stats and dead-lettering go on.
func TestPlantedNumbers(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		statement   string
		undecodable bool
	}{
		"enqueued":               {`UPDATE {s}.message SET enqueued = 'infinity'`, false},
		"enqueued, long ago":     {`UPDATE {s}.message SET enqueued = '-infinity'`, false},
		"died":                   {`UPDATE {s}.message SET died = 'infinity'`, false},
		"not before":             {`UPDATE {s}.content SET not_before = 'infinity'`, true},
		"not before an instant":  {`UPDATE {s}.content SET not_before = '-infinity'`, true},
		"deliveries":             {`UPDATE {s}.message SET deliveries = 2147483647`, false},
		"deliveries, beyond int": {`UPDATE {s}.message SET deliveries = -2147483648`, false},
	} {
		for _, session := range []string{"", "s"} {
			t.Run(name+", session "+session, func(t *testing.T) {
				t.Parallel()
				rawURL, schema := newSchema(t, "")
				q := openQueue(t, rawURL)
				send(t, q, &driver.Message{ID: "a", SessionID: session, Body: []byte("x")})
				sql(t, strings.ReplaceAll(x.statement, "{s}", schema))
				if seen, _, err := q.Peek(t.Context(), "", 10); err != nil || len(seen) != 1 || seen[0].Undecodable != x.undecodable {
					t.Fatalf("Peek: %d messages, %v", len(seen), err)
				}
				if st, err := q.Stats(t.Context()); err != nil || st.Ready != 1 {
					t.Errorf("Stats: %+v, %v", st, err)
				}
				from := driver.Source(q)
				if session != "" {
					s, err := q.AcceptSession(t.Context(), "", 0)
					if err != nil {
						t.Fatal(err)
					}
					from = s
				}
				all, err := from.Receive(t.Context(), 1, 0)
				if err != nil || len(all) != 1 || all[0].Undecodable != x.undecodable {
					t.Fatalf("Receive: %d messages, %v", len(all), err)
				}
				dead := driver.Settlement{Delivery: all[0], Kind: driver.MoveToDeadLetter, Reason: "r"}
				if err := from.Settle(t.Context(), []driver.Settlement{dead})[0]; err != nil {
					t.Errorf("dead-lettering it: %v", err)
				}
			})
		}
	}
}
