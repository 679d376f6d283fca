package intake

import (
	"time"

	"github.com/queue-runtime/queue/keys"
)

// trialState is what messages have shown of a key.
type trialState uint8

const (
	untried   trialState = iota // no message under it came yet, or too few failed
	suspended                   // MaxAuthFailures failed, or one too often, and none opened: its secret may be wrong
	working                     // a message opened under it: what fails is forged
)

// trial is the state machine of one key ID: untried -> suspended -> working, or untried
// -> working. Its methods are its transitions.
type trial struct {
	state    trialState
	failures int           // without one that opened
	delay    time.Duration // for which a message that fails is given back
	grownAt  time.Time     // when delay grew last
}

// fail notes a message that did not authenticate, and reports whether it suspended the
// key: after limit failures, or at once if the message has few deliveries left. The delay
// doubles at most once in its own time, however many messages fail.
func (t *trial) fail(now time.Time, limit int, spent bool) (began bool) {
	if t.state == working {
		return false
	}
	t.failures++
	switch {
	case t.state == untried:
		t.delay, t.grownAt = FirstPause, now
		if t.failures >= limit || spent {
			t.state, began = suspended, true
		}
	case now.Sub(t.grownAt) >= t.delay:
		t.delay, t.grownAt = min(2*t.delay, MaxPause), now
	}
	return began
}

// maxTrials bounds the key IDs of a receiver whose keys are a CryptoProvider's own: then
// any ID that a message names gets this far. Those beyond it share one trial.
const maxTrials = 256

// trials are the trials of a receiver's key IDs.
type trials struct {
	of    map[keys.ID]*trial
	works int // how many are working
}

// get returns the trial of a key ID.
func (t *trials) get(id keys.ID) *trial {
	if t.of == nil {
		t.of = make(map[keys.ID]*trial)
	}
	if x := t.of[id]; x != nil {
		return x
	}
	if len(t.of) >= maxTrials {
		id = "" // no message names it
		if x := t.of[id]; x != nil {
			return x
		}
	}
	x := &trial{}
	t.of[id] = x
	return x
}

// opened notes a message that opened.
func (t *trials) opened(id keys.ID) (first bool) {
	if x := t.of[id]; x != nil && x.state == working {
		return false
	}
	if len(t.of) >= maxTrials {
		for other, x := range t.of { // an ID that works takes the place of one that does not
			if x.state != working {
				delete(t.of, other)
				break
			}
		}
	}
	if t.of == nil {
		t.of = make(map[keys.ID]*trial)
	}
	if t.of[id] == nil && len(t.of) > maxTrials {
		return false
	}
	t.of[id] = &trial{state: working}
	t.works++
	return true
}

// stateOf says what is known of the key of a trial.
func (t *trials) stateOf(x *trial) KeyState {
	switch {
	case x.state == working:
		return KeyWorks
	case t.works > 0:
		return OtherWorks
	}
	return NoneWorks
}
