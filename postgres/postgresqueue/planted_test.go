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
