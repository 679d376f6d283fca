package sqsqueue

import (
	"context"
	"testing"
	"time"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/testbed/awspeer"
	"github.com/queue-runtime/queue/testbed/sqsattack"
)

// attackGrace is how soon the victim gives back what a last poll brought, so that
// the attacker need not wait for it.
const attackGrace = 100 * time.Millisecond

// underAttack gives a harness's brokers an attacker. If api is nil, each case has
// a fake of its own.
func underAttack(h drivertest.Harness, api sqsattack.API) drivertest.Harness {
	start := h.Start
	h.Start = func(t drivertest.T) *drivertest.Instance {
		i := start(t)
		if api != nil {
			i.Attacker = sqsattack.New(api)
		}
		connect := i.Connect
		i.Connect = func(ctx context.Context) (driver.Broker, error) {
			p, err := connect(ctx)
			if err == nil {
				p.(*Broker).surplusGrace = attackGrace
			}
			return p, err
		}
		return i
	}
	return h
}

func TestAttacksFake(t *testing.T) {
	for name, k := range map[string]kind{"standard": standard, "fifo": fifoKind} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, attacktest.Cases(underAttack(fakeHarness(k), nil), 0))
		})
	}
}

func TestAttacksFauxqs(t *testing.T) {
	cfg := awspeer.Config(awspeer.Fauxqs(t))
	attacks(t, peer{cfg: cfg})
}

func TestAttacksLive(t *testing.T) {
	attacks(t, peer{cfg: live(t), slack: 20 * time.Second})
}

func attacks(t *testing.T, p peer) {
	t.Parallel()
	for name, k := range map[string]kind{"standard": standard, "fifo": fifoKind} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// TestAttacksFake makes more attempts.
			beside(t, attacktest.Cases(underAttack(p.harness(k), rawClient(p.cfg)), 6))
		})
	}
}
