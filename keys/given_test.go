package keys_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/queue-runtime/queue/keys"
)

// TestGiven: what a provider read anew is the key from before while nothing differs, takes its
// place when something does, and is refused if it is another secret under a confirmed ID, also
// after the key was away.
func TestGiven(t *testing.T) {
	var g keys.Given
	read := func(fill byte, queues ...string) *keys.Key {
		k, err := keys.New("a", bytes.Repeat([]byte{fill}, keys.Size), &keys.Options{Queues: queues})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	take := func(k *keys.Key) *keys.Key {
		t.Helper()
		got, err := g.Take(k)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	wrong := take(read(1))
	if again := read(1); take(again) != wrong || again.Err() == nil {
		t.Errorf("the same key read again: want the one from before, and the copy destroyed (%v)", again.Err())
	}
	right := take(read(2))
	if right == wrong || right.Equal(wrong) || wrong.Err() != nil {
		t.Errorf("a corrected secret: %v; the wrong key is in use still, and has %v", right, wrong.Err())
	}
	right.Confirm()
	queues := take(read(2, "orders"))
	if queues == right || !queues.For("orders") || queues.For("ledger") {
		t.Errorf("the same secret for other queues: %v", queues.Queues())
	}
	g.Drop("a")
	forged := read(1)
	if k, err := g.Take(forged); k != nil || !errors.Is(err, keys.ErrInvalidKey) || forged.Err() == nil {
		t.Errorf("another secret under a confirmed ID: %v, %v, %v", k, err, forged.Err())
	}
	if again := take(read(2)); again == queues || !again.Equal(right) {
		t.Errorf("the confirmed secret is back: %v", again)
	}
	before := take(read(2))
	g.Drop("a")
	if again := take(read(2)); again == before {
		t.Error("a key that was dropped is given out once more")
	}
	other := take(mustKey(t, "b", 3))
	if kept := take(read(2)); kept.Err() != nil || take(mustKey(t, "b", 3)) != other {
		t.Errorf("a second ID: %v; want that each keeps its key", kept.Err())
	}
	if k, err := g.Take(forged); k != nil || !errors.Is(err, keys.ErrDestroyed) {
		t.Errorf("a destroyed key: %v, %v", k, err)
	}
}
