package deadletter_test

import (
	"strings"
	"testing"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

const secret = "no such account: Jane Doe"

// giveUpWith dead-letters a message with a detail, and returns the letter as the broker has
// it and as it is read.
func (x *fixture) giveUpWith(detail string) (string, *deadletter.Letter) {
	x.Helper()
	x.send(&queue.Message{ID: "m", Body: []byte("a")})
	d := x.one(x.receiver(orders, nil))
	x.must(d.DeadLetter(x.Context(), queue.Reason{Code: "gone", Description: "an account", Detail: detail}))
	_, why, err := x.broker.Attacker().DeadLetters(x.Context(), orders)
	x.must(err)
	return why[0].Description, x.letter()
}

func (x *fixture) letter() *deadletter.Letter {
	x.Helper()
	for l, err := range x.deadLetters().All(x.Context(), nil) {
		x.must(err)
		return l
	}
	x.Fatal("no dead letter")
	return nil
}

// What a handler failed with travels with the dead letter: the broker cannot read it, and
// what opens the letter opens it.
func TestDetailTravelsSealed(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		stored, l := x.giveUpWith(secret)
		if !strings.HasPrefix(stored, "an account") || strings.Contains(stored, secret) || len(stored) < 2000 {
			x.Errorf("the broker has %q", stored)
		}
		if l.Detail != secret || l.DetailErr != nil || l.DeadLetter.Description != "an account" || l.DeadLetter.Reason != "gone" {
			x.Errorf("detail %q, %v; why %+v", l.Detail, l.DetailErr, l.DeadLetter)
		}
		// The key is gone from the list: neither opens.
		x.must(x.ring.Add(newKey(x.T, "k2", 2)))
		x.must(x.ring.SetCurrent("k2"))
		x.must(x.ring.Remove("k1"))
		if l := x.letter(); l.Detail != "" || l.DetailErr == nil || l.Err == nil {
			x.Errorf("without its key: %q, %v", l.Detail, l.DetailErr)
		}
	})
}

// Without encryption a detail is not stored.
func TestDetailIsNeverInClear(t *testing.T) {
	inBubble(t, func(_ *fixture, o *queue.Options) {
		o.Crypto = queue.CryptoConfig{}
	}, func(x *fixture) {
		if stored, l := x.giveUpWith(secret); stored != "an account" || l.Detail != "" || l.DetailErr != nil {
			x.Errorf("stored %q, detail %q, %v", stored, l.Detail, l.DetailErr)
		}
	})
}

// A message whose detail cannot be sealed is dead-lettered without it.
func TestUnsealedDetailIsDropped(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.send(&queue.Message{ID: "m", Body: []byte("a")})
		ring, err := keys.NewRing()
		x.must(err)
		x.must(ring.Add(newKey(x.T, "k1", 1)))
		d := x.one(x.receiver(orders, &queue.ReceiverOptions{Keys: ring})) // it has no current key
		x.must(d.DeadLetter(x.Context(), queue.Reason{Code: "gone", Detail: secret}))
		_, why, err := x.broker.Attacker().DeadLetters(x.Context(), orders)
		x.must(err)
		if why[0] != (driver.DeadLetter{Reason: "gone", Queue: orders, At: why[0].At}) {
			x.Errorf("stored %+v", why[0])
		}
		if !strings.Contains(x.log.String(), "could not be sealed") || strings.Contains(x.log.String(), secret) {
			x.Errorf("log: %s", x.log)
		}
	})
}
