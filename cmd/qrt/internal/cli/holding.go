package cli

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// The fewest deliveries that do not surprise: on SQS messages that come after the call
// that asked for them has ended are given back, and count.
const (
	fewDeliveries    = 3
	fewDeliveriesSQS = 10
)

// deliveries looks at how often a message may fail.
func (x *doctorRun) deliveries(caps *driver.Capabilities, onSQS bool) {
	const check = "deliveries"
	few, how := fewDeliveries, "raise the limit of deliveries"
	if onSQS {
		few, how = fewDeliveriesSQS, "set maxReceiveCount of the redrive policy to 10 or more: what a poll brings too late counts, too"
	}
	switch n := caps.MaxDeliveries; {
	case n == 0 && onSQS:
		x.find(levelWarning, check, "give the queue a redrive policy, or a message that always fails comes again until it is too old", "the queue has no limit of deliveries")
	case n == 0:
		x.find(levelNote, check, "set a limit, or a message that always fails comes again for ever", "the broker has no limit of deliveries")
	case n < few:
		x.find(levelWarning, check, how, "a message is dead-lettered at delivery %d: a few crashes are enough", n)
	default:
		x.ok(check, "a message is dead-lettered after %s deliveries", display.Count(n))
	}
}

// tooLong is how many times a handler's time a lock may last before it is worth a
// word: a message whose handler has crashed waits for the rest of it.
const tooLong = 20

// lock holds the lock of a message against the time of a handler.
func (x *doctorRun) lock(caps *driver.Capabilities, onSQS bool) {
	const check = "lock"
	setting := "the queue's lock duration"
	if onSQS {
		setting = "the queue's visibility timeout"
	}
	lock, takes := caps.Lock, x.handler
	switch {
	case lock <= 0:
	case takes == 0:
		x.find(levelNote, check, "qrt doctor --handler 30s compares it with the time that your handlers take", "a message is held for %s; handlers that take longer must renew it", display.Duration(lock))
	case onSQS && takes > caps.MaxLock:
		x.find(levelError, check, "split the work, or complete the message first and keep the work elsewhere", "a handler of %s: SQS holds no message for more than %s, renewals included", display.Duration(takes), display.Duration(caps.MaxLock))
	case takes >= lock:
		x.find(levelWarning, check, "raise "+setting+" to a few times that; until then only a worker.Pool, or calls of Renew, keep the message", "a handler of %s outlasts the lock of %s", display.Duration(takes), display.Duration(lock))
	case lock > 5*time.Minute && lock > tooLong*takes:
		x.find(levelNote, check, "lower "+setting+" to a few times what a handler takes", "a message whose handler crashes is away for up to %s, and handlers take %s", display.Duration(lock), display.Duration(takes))
	default:
		x.ok(check, "a message is held for %s, and handlers take %s", display.Duration(lock), display.Duration(takes))
	}
}

// keyLife says for how long a key is needed, if that is known: for as long as
// a message can wait, here or among the dead letters.
func (x *doctorRun) keyLife(ctx context.Context, p keys.Provider, waiting, dead time.Duration) {
	if p == nil || waiting <= 0 || dead <= 0 {
		return
	}
	const check = "key life"
	needed := waiting + dead
	list, err := listKeys(ctx, p)
	if err != nil {
		return // said where the keys were looked at
	}
	if len(list.Keys) == 1 {
		if made := list.Keys[0].Created; made != nil && time.Since(*made) < needed {
			x.find(levelNote, check, "was there another key before it? Then put it back: qrt keys audit "+x.queue+" shows what needs it", "there is one key, made %s, and messages can wait for %s", relative(*made, time.Now()), display.Duration(needed))
			return
		}
	}
	x.find(levelNote, check, "retire a key no sooner: qrt keys audit "+x.queue, "a key is needed for %s after it was last current: %s in the queue, %s among the dead letters", display.Duration(needed), display.Duration(waiting), display.Duration(dead))
}
