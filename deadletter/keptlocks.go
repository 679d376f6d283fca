package deadletter

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// settlePerLetter is how much longer than settleTimeout the release of many letters may
// take: a remote broker settles some ten of them in 20 ms.
const settlePerLetter = 2 * time.Millisecond

// renewBatch is how many locks one call renews at most. Drivers split it further.
const renewBatch = 100

// keptRenewals is how often during a lock a read that waits looks for locks to renew: one of
// which half is over has a quarter left then.
const keptRenewals = 4

// keptLocks are letters that a read received and leaves where they are. They stay locked
// until the read is over, so that they do not come again before the ones behind them.
type keptLocks struct {
	dead    driver.Queue
	letters map[string]*driver.Delivery // by BrokerID, without bodies
	order   []*driver.Delivery          // by the end of their locks; those that letters no longer holds are passed over
}

func newKeptLocks(dead driver.Queue) keptLocks {
	return keptLocks{dead: dead, letters: make(map[string]*driver.Delivery)}
}

// add keeps letters. Of one that is kept already the newest receipt counts.
func (k *keptLocks) add(batch ...*driver.Delivery) {
	for _, m := range batch {
		slim := *m
		slim.Body, slim.Attributes = nil, nil
		k.letters[m.BrokerID] = &slim
		k.order = append(k.order, &slim)
	}
}

// renew extends the locks of which half is over. A lock that cannot be renewed runs out;
// the letter then comes again, and the read passes over it.
func (k *keptLocks) renew(ctx context.Context) {
	lock := k.dead.Capabilities().Lock
	if lock == 0 {
		return // locks have no end in time
	}
	at := time.Now().Add(lock / 2)
	var renewed []*driver.Delivery // each once, however short a lock the broker gives
	for ctx.Err() == nil {
		due := k.due(at)
		if len(due) == 0 {
			break
		}
		results := k.dead.Renew(ctx, due)
		for i, m := range due {
			if i >= len(results) || results[i].Err != nil {
				continue
			}
			m.LockedUntil = results[i].LockedUntil
			renewed = append(renewed, m)
		}
	}
	k.order = append(k.order, renewed...)
}

// due takes from the order letters whose locks end before at, as many as one call renews.
func (k *keptLocks) due(at time.Time) []*driver.Delivery {
	var due []*driver.Delivery
	for len(k.order) > 0 && len(due) < renewBatch {
		m := k.order[0]
		if k.letters[m.BrokerID] == m {
			if m.LockedUntil.IsZero() || m.LockedUntil.After(at) {
				break
			}
			due = append(due, m)
		}
		k.order = k.order[1:]
	}
	return due
}

// release gives the letters back, also if the caller has left.
func (k *keptLocks) release(ctx context.Context) {
	if len(k.letters) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout+time.Duration(len(k.letters))*settlePerLetter)
	defer cancel()
	settle := make([]driver.Settlement, 0, len(k.letters))
	for _, m := range k.letters {
		settle = append(settle, driver.Settlement{Delivery: m, Kind: driver.Release})
	}
	_ = k.dead.Settle(ctx, settle) // if it fails the locks run out
	clear(k.letters)
}
