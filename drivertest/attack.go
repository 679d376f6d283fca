package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/queue-runtime/queue"
)

// AttackEnv is where attacks are performed.
type AttackEnv struct {
	// Broker is under attack. It needs an Attacker.
	Broker *Instance

	// Payload returns the i-th body to send, which the attacker may not read.
	// No two may be equal. Nil means JSON of about 1 KiB.
	Payload func(i int) []byte

	// Window is how old a message may be in replay_after_window. All messages of
	// that attack must be sent and received within, and it must pass. 0 means
	// 10 s.
	Window time.Duration
}

// Outcome is what came of an attack. Attempts are Delivered + DeadLettered +
// Abandoned, unless Faults says otherwise.
type Outcome struct {
	Name     string `json:"name"`
	Attempts int    `json:"attempts"`

	// Delivered are messages that reached the application. In an attack on
	// authenticity each is a success of the attacker, and a fault.
	Delivered    int `json:"delivered"`
	DeadLettered int `json:"dead_lettered"`
	Abandoned    int `json:"abandoned"` // the broker will deliver them again

	// Reason is the code by which metrics and dead-letter reasons named the
	// attempts; several are separated by commas.
	Reason string `json:"error_type"`

	// Faults say where the outcome is not that of the threat model. They never
	// hold a payload.
	Faults []string `json:"faults,omitempty"`
}

// disposition is what must become of every attempt.
type disposition int

const (
	deadLettered disposition = iota
	abandoned
	delivered
)

// attack is a row of the threat model.
type attack struct {
	name      string
	errorType string // that must be counted for each attempt
	becomes   disposition
	run       func(*siege) error
}

var attacks = []attack{
	{"alter_body", "authentication_failed", deadLettered, altering(alterBody)},
	{"alter_header", "authentication_failed", deadLettered, altering(alterHeader)},
	{"alter_message_id", "authentication_failed", deadLettered, altering(alterMessageID)},
	{"alter_session_id", "authentication_failed", deadLettered, alteringSessions(alterSessionID)},
	{"alter_correlation_id", "authentication_failed", deadLettered, altering(alterCorrelationID)},
	{"alter_content_type", "authentication_failed", deadLettered, altering(alterContentType)},
	{"alter_attribute", "authentication_failed", deadLettered, altering(alterAttribute)},
	{"move_queue", "authentication_failed", deadLettered, moveQueue},
	{"swap_key_id", "authentication_failed", deadLettered, swapKeyID},
	{"forge_version", "unsupported_version", abandoned, altering(forgeVersion)},
	{"strip_marker", "plaintext_rejected", deadLettered, altering(stripMarker)},
	{"inject_plaintext", "plaintext_rejected", deadLettered, injectPlaintext(queue.Reject)},
	{"replay_in_window", "nonce_reused", deadLettered, replayInWindow},
	{"replay_after_window", "message_expired", deadLettered, replayAfterWindow},
	{"two_key_ciphertext", "authentication_failed", deadLettered, twoKeyCiphertext},
	{"flood_key_ids", "key_not_found", abandoned, floodKeyIDs},
	{"plaintext_allow", "", delivered, injectPlaintext(queue.Allow)},
	{"plaintext_allow_with_alert", "plaintext_allowed", delivered, injectPlaintext(queue.AllowWithAlert)},
	{"unbound_attribute_added", "", delivered, unboundAttributeAdded},
}

// AttackNames returns the names of the attacks, as the demonstration and the
// documentation have them, in the order of the threat model.
func AttackNames() []string {
	names := make([]string, len(attacks))
	for i, a := range attacks {
		names[i] = a.name
	}
	return names
}

// RunAttack performs an attack n times: it sends sealed messages through package
// queue, lets the attacker work on what the broker stores, reads back what he
// did, and receives through package queue. Honest messages go along, and must
// arrive; what counts as delivered or forged is decided by a ledger of what was
// sent that knows nothing of encryption.
//
// Its error says that the attack could not be performed. It wraps
// errors.ErrUnsupported where the broker lacks what the attack is about.
func RunAttack(ctx context.Context, name string, env *AttackEnv, n int) (Outcome, error) {
	i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == name })
	switch {
	case i < 0:
		return Outcome{}, fmt.Errorf("drivertest: attack %q is unknown", name)
	case n < 1:
		return Outcome{}, fmt.Errorf("drivertest: %d attempts, there must be at least 1", n)
	case env == nil || env.Broker == nil || env.Broker.Attacker == nil:
		return Outcome{}, errors.New("drivertest: an attack needs a broker with an Attacker")
	}
	s, err := newSiege(ctx, attacks[i], env, n)
	if err != nil {
		return Outcome{}, fmt.Errorf("drivertest: attack %s: %w", name, err)
	}
	err = attacks[i].run(s)
	if e := s.close(ctx); err == nil {
		err = e
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("drivertest: attack %s: %w", name, err)
	}
	return s.outcome(), nil
}

// Attacks performs every attack on h's broker, one case each, and holds the
// outcome against the threat model. The harness must have an Attacker.
func Attacks(t T, h Harness) {
	n := h.AttackAttempts
	if n == 0 {
		n = 20
	}
	for _, a := range attacks {
		if h.Only != nil && !h.Only(a.name) {
			continue
		}
		t.Run(a.name, func(t T) {
			ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
			defer cancel()
			o, err := RunAttack(ctx, a.name, &AttackEnv{Broker: h.Start(t)}, n)
			if errors.Is(err, errors.ErrUnsupported) {
				t.Skipf("the broker has nothing to attack here: %v", err)
			}
			if err != nil {
				t.Fatalf("%v", err)
			}
			for _, f := range o.Faults {
				t.Errorf("%s", f)
			}
			t.Logf("%d attempts: %d delivered, %d dead-lettered, %d abandoned; %s", o.Attempts, o.Delivered, o.DeadLettered, o.Abandoned, o.Reason)
		})
	}
}
