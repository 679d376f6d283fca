package queue_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// brokerIn and storeIn lie in databases.
type brokerIn struct {
	driver.Broker
	name string
}

func (b brokerIn) Database() string { return b.name }

type storeIn struct {
	replay.Store
	name   string
	trusts bool
}

func (s storeIn) Database() string              { return s.name }
func (s storeIn) TrustsDatabaseOperators() bool { return s.trusts }

// A replay store in the broker's database is refused, unless its owner says that the
// operators are trusted.
func TestStoreInDatabaseOfBroker(t *testing.T) {
	memory, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		broker, store string
		trusts        bool
		refused       bool
		warns         bool
	}{
		{"one database", "a", "a", false, true, false},
		{"one database, trusted", "a", "a", true, false, true},
		{"two", "a", "b", false, false, false},
		{"two, trusted", "a", "b", true, false, false},
		{"unknown", "", "", false, false, false},
	} {
		var log bytes.Buffer
		o := queue.Strict(newRing(t, "k1"), storeIn{memory, c.store, c.trusts})
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		client, err := queue.New(brokerIn{memqueue.New(nil), c.broker}, o)
		if c.refused != (err != nil) || err != nil && (!errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), "TrustDatabaseOperators")) {
			t.Errorf("%s: New = %v", c.name, err)
		}
		if warned := strings.Contains(log.String(), "can replay messages"); warned != c.warns {
			t.Errorf("%s: warned %v, want %v", c.name, warned, c.warns)
		}
		if client != nil {
			if err := client.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}
