package attacktest

import (
	"context"
	"errors"
	"time"

	"github.com/queue-runtime/queue/drivertest"
)

// caseTimeout bounds one case, so that a call that ignores its context fails it.
const caseTimeout = 5 * time.Minute

// DefaultAttempts is how often [Cases] performs each attack unless the caller
// says otherwise: enough that every kind of alteration occurs at least twice.
const DefaultAttempts = 20

// Cases returns one case for each attack, in the order of the threat model. A
// case performs its attack on the broker of h, attempts times, and fails unless
// the outcome is that of the threat model. 0 attempts means [DefaultAttempts].
//
// The Attacker of h's instances must be set. A case is skipped if the broker has
// no queues of the kind that the attack needs.
func Cases(h drivertest.Harness, attempts int) []drivertest.Case {
	if attempts == 0 {
		attempts = DefaultAttempts
	}
	cases := make([]drivertest.Case, len(attacks))
	for i, a := range attacks {
		cases[i] = drivertest.Case{Name: a.name, Run: func(t drivertest.T) { perform(t, h, a.name, attempts) }}
	}
	return cases
}

// perform runs one attack as a test.
func perform(t drivertest.T, h drivertest.Harness, name string, attempts int) {
	ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
	defer cancel()
	o, err := Run(ctx, name, &Env{Broker: h.Start(t)}, attempts)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("the broker lacks what this attack needs: %v", err)
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, f := range o.Faults {
		t.Errorf("%s", f)
	}
	t.Logf("%d attempts: %d delivered, %d dead-lettered, %d abandoned, %d refused; %s", o.Attempts, o.Delivered, o.DeadLettered, o.Abandoned, o.Refused, o.Reason)
}
