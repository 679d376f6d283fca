package sbqueue_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// The answers of the management link mean what their status means.
func TestStatus(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		400: driver.ErrInvalid, 401: driver.ErrPermission, 403: driver.ErrPermission, 404: driver.ErrNotFound, 408: driver.ErrUnavailable,
		410: driver.ErrLockLost, 429: driver.ErrThrottled, 500: driver.ErrUnavailable, 503: driver.ErrUnavailable, 504: driver.ErrUnavailable,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{})
			q := n.open(t)
			send(t, q, &driver.Message{ID: "a"})
			d := receive(t, q, 1)
			if err := q.Renew(t.Context(), d)[0].Err; err != nil {
				t.Fatalf("Renew: %v", err)
			}
			i := n.inject(t, sbemulator.Fault{On: sbemulator.OnManage, Action: sbemulator.Refuse, Status: status})
			if err := q.Renew(t.Context(), d)[0].Err; !errors.Is(err, want) {
				t.Errorf("Renew: %v, want %v", err, want)
			}
			i.Remove()
			if _, _, err := q.Peek(t.Context(), "", 1); err != nil {
				t.Errorf("Peek after it: %v", err)
			}
		})
	}
}

// Conditions mean what they say, even if the SDK has no code for them, and the next
// call is not harmed.
func TestCondition(t *testing.T) {
	t.Parallel()
	for condition, want := range map[string]error{
		"amqp:unauthorized-access": driver.ErrPermission, "amqp:resource-limit-exceeded": driver.ErrFull, "amqp:not-found": driver.ErrNotFound,
		"amqp:link:message-size-exceeded": driver.ErrTooLarge, "amqp:not-allowed": driver.ErrInvalid, "com.microsoft:server-busy": driver.ErrThrottled,
		"com.microsoft:entity-disabled": driver.ErrPermission, "com.microsoft:argument-error": driver.ErrInvalid, "com.microsoft:timeout": driver.ErrUnavailable,
		"com.microsoft:session-lock-lost": driver.ErrSessionLost, "com.microsoft:message-lock-lost": driver.ErrLockLost,
		"com.microsoft:session-cannot-be-locked": driver.ErrSessionHeld,
	} {
		t.Run(condition, func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{})
			q := n.open(t)
			i := n.inject(t, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.Refuse, Condition: condition, Description: "for a test: SharedAccessSignature sr=x&sig=c2VjcmV0"})
			for _, batch := range [][]*driver.Message{{{ID: "a"}}, {{ID: "a"}, {ID: "b"}}} {
				for _, r := range q.Send(t.Context(), batch) {
					var e *driver.Error
					if !errors.Is(r.Err, want) || !errors.As(r.Err, &e) {
						t.Errorf("Send: %v, want %v", r.Err, want)
					} else if e.Kind == driver.Throttled && e.RetryAfter <= 0 {
						t.Errorf("Send: %v without a time to wait", r.Err)
					}
					if r.Err != nil && strings.Contains(r.Err.Error(), "c2VjcmV0") {
						t.Errorf("Send tells a credential: %v", r.Err)
					}
				}
			}
			i.Remove()
			send(t, q, &driver.Message{ID: "c"})
		})
	}
}
