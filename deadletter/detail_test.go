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
	x.Send(&queue.Message{ID: "m", Body: []byte("a")})
	d := x.One(x.Receiver(orders, nil))
	x.Must(d.DeadLetter(x.Context(), queue.Reason{Code: "gone", Description: "an account", Detail: detail}))
	_, why, err := x.Broker.Attacker().DeadLetters(x.Context(), orders)
	x.Must(err)
	return why[0].Description, x.letter()
}

func (x *fixture) letter() *deadletter.Letter {
	x.Helper()
	for l, err := range x.deadLetters().All(x.Context(), nil) {
		x.Must(err)
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
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		x.Must(x.Ring.SetCurrent("k2"))
		x.Must(x.Ring.Remove("k1"))
		if l := x.letter(); l.Detail != "" || l.DetailErr == nil || l.Err == nil {
			x.Errorf("without its key: %q, %v", l.Detail, l.DetailErr)
		}
	})
}

// A detail belongs to the plaintext that the broker has, not to what the handler made of it.
func TestDetailOfChangedPlaintext(t *testing.T) {
	inBubble(t, func(_ *fixture, o *queue.Options) {
		o.Crypto.PlaintextPolicy = queue.Allow
	}, func(x *fixture) {
		r := x.Receiver(orders, nil)
		x.Inject(orders, driver.Message{ID: "m", Body: []byte("pay 100")})
		d := x.One(r)
		copy(d.Body, "PWN")
		x.Must(d.DeadLetter(x.Context(), queue.Reason{Code: "gone", Detail: secret}))
		if l := x.letter(); l.Detail != secret || l.DetailErr != nil || string(l.Body) != "pay 100" {
			x.Errorf("body %q, detail %q, %v", l.Body, l.Detail, l.DetailErr)
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
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		ring, err := keys.NewRing()
		x.Must(err)
		x.Must(ring.Add(newKey(x.T, "k1", 1)))
		d := x.One(x.Receiver(orders, &queue.ReceiverOptions{Keys: ring})) // it has no current key
		x.Must(d.DeadLetter(x.Context(), queue.Reason{Code: "gone", Detail: secret}))
		_, why, err := x.Broker.Attacker().DeadLetters(x.Context(), orders)
		x.Must(err)
		if why[0] != (driver.DeadLetter{Reason: "gone", Queue: orders, At: why[0].At}) {
			x.Errorf("stored %+v", why[0])
		}
		if !strings.Contains(x.Log.String(), "could not be sealed") || strings.Contains(x.Log.String(), secret) {
			x.Errorf("log: %s", x.Log)
		}
	})
}
