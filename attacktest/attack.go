package attacktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/drivertest"
)

// Env is the environment of an attack.
type Env struct {
	// Broker is the broker under attack. Its Attacker must be set.
	Broker *drivertest.Instance

	// Payload returns the i-th body to send, which must not be readable at the
	// broker. No two bodies may be equal. Nil means JSON of about 1 KiB.
	Payload func(i int) []byte

	// Window is the maximum message age in replay_after_window. All messages of
	// that attack must be sent and received within it, and the attack then waits
	// until it is over. 0 means 10 s.
	Window time.Duration
}

// attack is a row of the threat model.
type attack struct {
	name      string
	errorType string      // the code that metrics must count for each attempt
	becomes   disposition // of every attempt
	run       func(*scenario) error
	sessions  bool // the messages belong to sessions
}

var attacks = []attack{
	{name: "alter_body", errorType: "authentication_failed", becomes: deadLettered, run: altering(alterBody)},
	{name: "alter_header", errorType: "authentication_failed", becomes: deadLettered, run: altering(alterHeader)},
	{name: "alter_message_id", errorType: "authentication_failed", becomes: deadLettered, run: altering(alterMessageID)},
	{name: "alter_session_id", errorType: "authentication_failed", becomes: deadLettered, run: altering(alterSessionID), sessions: true},
	{name: "alter_correlation_id", errorType: "authentication_failed", becomes: deadLettered, run: altering(alterCorrelationID)},
	{name: "alter_content_type", errorType: "authentication_failed", becomes: deadLettered, run: altering(alterContentType)},
	{name: "alter_attribute", errorType: "authentication_failed", becomes: deadLettered, run: altering(alterAttribute)},
	{name: "move_queue", errorType: "authentication_failed", becomes: deadLettered, run: moveQueue},
	{name: "swap_key_id", errorType: "authentication_failed", becomes: deadLettered, run: swapKeyID},
	{name: "forge_version", errorType: "unsupported_version", becomes: deadLettered, run: altering(forgeVersion)},
	{name: "strip_marker", errorType: "plaintext_rejected", becomes: deadLettered, run: altering(stripMarker)},
	{name: "inject_plaintext", errorType: "plaintext_rejected", becomes: deadLettered, run: injectPlaintext(queue.Reject)},
	{name: "replay_in_window", errorType: "nonce_reused", becomes: deadLettered, run: replayInWindow},
	{name: "replay_after_window", errorType: "message_expired", becomes: deadLettered, run: replayAfterWindow},
	{name: "alter_sequence", errorType: "authentication_failed", becomes: deadLettered, run: altering(alterSequence)},
	{name: "unpad", errorType: "authentication_failed", becomes: deadLettered, run: unpad},
	{name: "forge_sender", errorType: "authentication_failed", becomes: deadLettered, run: forgeSender},
	{name: "forge_session_state", errorType: "authentication_failed", becomes: refused, run: forgeSessionState, sessions: true},
	{name: "two_key_ciphertext", errorType: "authentication_failed", becomes: deadLettered, run: twoKeyCiphertext},
	{name: "flood_key_ids", errorType: "key_not_found", becomes: abandoned, run: floodKeyIDs},
	{name: "plaintext_allow", errorType: "", becomes: delivered, run: injectPlaintext(queue.Allow)},
	{name: "plaintext_allow_with_alert", errorType: "plaintext_allowed", becomes: delivered, run: injectPlaintext(queue.AllowWithAlert)},
	{name: "unbound_attribute_added", errorType: "", becomes: delivered, run: unboundAttributeAdded},
}

// Names returns the names of the attacks, in the order of the threat model.
func Names() []string {
	names := make([]string, len(attacks))
	for i, a := range attacks {
		names[i] = a.name
	}
	return names
}

// Run performs the named attack n times, where n is at least 1. It sends sealed
// messages through package queue, lets the attacker change what the broker
// stores, reads that back, and receives through package queue. Honest messages
// are sent as well and must arrive. Whether a delivered message is honest is
// decided by comparing it with what was sent, without any cryptography.
//
// An error means that the attack could not be performed, and says nothing about
// the library. It wraps errors.ErrUnsupported if the broker lacks what the attack
// needs. Attacks on one Instance run one after the other.
func Run(ctx context.Context, name string, env *Env, n int) (Outcome, error) {
	i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == name })
	switch {
	case i < 0:
		return Outcome{}, fmt.Errorf("attacktest: attack %q is unknown; see Names", name)
	case n < 1:
		return Outcome{}, fmt.Errorf("attacktest: %d attempts, there must be at least 1", n)
	case env == nil || env.Broker == nil || env.Broker.Attacker == nil:
		return Outcome{}, errors.New("attacktest: an attack needs a broker with an Attacker")
	}
	s, err := newScenario(ctx, attacks[i], env, n)
	if err != nil {
		return Outcome{}, fmt.Errorf("attacktest: attack %s: %w", name, err)
	}
	err = attacks[i].run(s)
	if e := s.close(ctx); err == nil {
		err = e
	}
	if err != nil {
		return Outcome{}, fmt.Errorf("attacktest: attack %s: %w", name, err)
	}
	return s.outcome(), nil
}
