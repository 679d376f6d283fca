package attacktest

import (
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
)

// replayInWindow stores copies of messages that were handled, while they are fresh.
func replayInWindow(s *scenario) error { return s.replay(receiverSettings{policy: queue.Reject}, 0) }

// replayAfterWindow stores the copies when they are no longer fresh, against a
// receiver without a replay store.
func replayAfterWindow(s *scenario) error {
	window := s.env.Window
	if window == 0 {
		window = 10 * time.Second
	}
	return s.replay(receiverSettings{policy: queue.Reject, untracked: true, maxAge: window}, window+window/4)
}

// replay lets the receiver handle messages, lets after pass, and stores the copies
// that were made before.
func (s *scenario) replay(how receiverSettings, after time.Duration) error {
	name, err := s.newQueue()
	if err != nil {
		return err
	}
	if err := s.send(name, 0, s.n); err != nil {
		return err
	}
	copies, err := s.capture(name)
	if err != nil {
		return err
	}
	r, err := s.receiver(name, how)
	if err != nil {
		return err
	}
	if err := s.receiveAll(r, s.n, s.forged); err != nil { // the originals
		return err
	}
	if !how.untracked { // one more behind them, so that the tag that the store keeps is none of the copies'
		last := s.n + s.companions()
		if err := s.send(name, last, last+1); err != nil {
			return err
		}
		if err := s.receiveAll(r, 1, s.forged); err != nil {
			return err
		}
	}
	if after > 0 {
		if err := s.wait(after); err != nil {
			return err
		}
	}
	if err := s.send(name, s.n, s.n+s.companions()); err != nil {
		return err
	}
	if err := s.add(name, copies); err != nil {
		return err
	}
	return s.receiveAll(r, s.companions(), s.forged)
}

// pass lets d pass.
func (s *scenario) wait(d time.Duration) error {
	if s.env.Broker.Wait != nil {
		return s.env.Broker.Wait(s.ctx, d)
	}
	backoff.Sleep(s.ctx, d)
	return s.ctx.Err()
}
