package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// TestNewError: an error is wrapped once, and says whether the same call may succeed later. The
// caller's own context errors stay as they are, those of a driver do not.
func TestNewError(t *testing.T) {
	done := queue.NewError("receive", "other", errFailing)
	for _, err := range []error{nil, context.Canceled, context.DeadlineExceeded, done, fmt.Errorf("batch: %w", done)} {
		if got := queue.NewError("send", orders, err); got != err { //nolint:errorlint // the same one
			t.Errorf("NewError(%v) = %v, want the same", err, got)
		}
	}
	for _, c := range []struct {
		err       error
		transient bool
		retry     time.Duration
	}{
		{errFailing, false, 0},
		{fmt.Errorf("dial: %w", context.DeadlineExceeded), false, 0},
		{&driver.Error{Kind: driver.Throttled, RetryAfter: time.Second, Err: errFailing}, true, time.Second},
		{&driver.Error{Kind: driver.Unavailable, Err: errFailing}, true, 0},
		{driver.Errorf(driver.Invalid, "no"), false, 0},
		{fmt.Errorf("%w: 503", queue.ErrKeyProvider), true, 0},
		{fmt.Errorf("%w: 503", queue.ErrReplayStore), true, 0},
		{queue.ErrReceivingPaused, true, 0},
		{&driver.Error{RetryAfter: time.Minute, Err: queue.ErrReceivingPaused}, true, time.Minute},
		{fmt.Errorf("%w: %w", queue.ErrReplayStore, driver.Errorf(driver.Permission, "no")), true, 0},
		{fmt.Errorf("%w: %w", queue.ErrKeyProvider, driver.Errorf(driver.Permission, "no")), true, 0},
		{queue.ErrReplayStoreLost, false, 0},
	} {
		var e *queue.Error
		err := queue.NewError("send", orders, c.err)
		if !errors.As(err, &e) || !errors.Is(err, c.err) || e.Op != "send" || e.Queue != orders || e.Transient != c.transient || e.RetryAfter != c.retry {
			t.Errorf("NewError(%v) = %+v, want transient %t, after %s", c.err, e, c.transient, c.retry)
		}
	}
	for name, want := range map[string]string{orders: `queue: send "orders": this call fails`, "": "queue: send: this call fails"} {
		if got := queue.NewError("send", name, errFailing).Error(); got != want {
			t.Errorf("text %q, want %q", got, want)
		}
	}
}

// TestKeyNotFoundError: it names the key, and says more if more is known.
func TestKeyNotFoundError(t *testing.T) {
	e := &queue.KeyNotFoundError{KeyID: "k1"}
	if got := e.Error(); got != `key "k1" not found` {
		t.Errorf("without a reason: %s", got)
	}
	e.Err = errors.New("it was revoked")
	if got := e.Error(); got != `key "k1" not found: it was revoked` {
		t.Errorf("with a reason: %s", got)
	}
}
