package sbemulator_test

import (
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// TestManagementRefuses makes requests that no client of Service Bus makes.
func TestManagementRefuses(t *testing.T) {
	s := start(t, nil, &sbemulator.QueueOptions{MaxMessageSize: 1000})
	if err := s.CreateQueue("sessions", sessional()); err != nil {
		t.Fatal(err)
	}
	conn := must[*amqp.Conn](t)(amqp.Dial(within(t), "amqp://"+s.Addr().String(), &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()}))
	defer func() { _ = conn.Close() }()
	session := must[*amqp.Session](t)(conn.NewSession(within(t), nil))
	encoded := func(m *amqp.Message) []byte { return must[[]byte](t)(m.MarshalBinary()) }
	message := func(b []byte) map[string]any { return map[string]any{"messages": []any{map[string]any{"message": b}}} }
	soon := encoded(&amqp.Message{Annotations: amqp.Annotations{"x-opt-scheduled-enqueue-time": time.Now()}, Data: [][]byte{nil}})
	type m = map[string]any
	for _, node := range []struct {
		address  string
		requests []struct {
			operation string
			body      any
			status    int32
		}
	}{
		{"q/$management", []struct {
			operation string
			body      any
			status    int32
		}{
			{"", m{}, 501},
			{"peek-message", m{}, 501},
			{"com.microsoft:no-such-thing", m{}, 501},
			{"com.microsoft:peek-message", "no map", 400},
			{"com.microsoft:peek-message", m{}, 400},
			{"com.microsoft:peek-message", m{"from-sequence-number": int64(1), "message-count": int32(0)}, 400},
			{"com.microsoft:peek-message", m{"from-sequence-number": int64(-5), "message-count": int32(1)}, 204},
			{"com.microsoft:renew-lock", m{}, 400},
			{"com.microsoft:renew-lock", m{"lock-tokens": []string{"x"}}, 400},
			{"com.microsoft:renew-lock", m{"lock-tokens": []amqp.UUID{{1}}}, 410},
			{"com.microsoft:update-disposition", m{"lock-tokens": []amqp.UUID{{1}}}, 400},
			{"com.microsoft:update-disposition", m{"lock-tokens": []amqp.UUID{{1}}, "disposition-status": "done"}, 400},
			{"com.microsoft:update-disposition", m{"lock-tokens": []amqp.UUID{{1}}, "disposition-status": "completed"}, 410},
			{"com.microsoft:receive-by-sequence-number", m{"sequence-numbers": []int64{}}, 400},
			{"com.microsoft:receive-by-sequence-number", m{"sequence-numbers": []string{"1"}}, 400},
			{"com.microsoft:receive-by-sequence-number", m{"sequence-numbers": []int64{1}, "receiver-settle-mode": uint32(1)}, 404},
			{"com.microsoft:cancel-scheduled-message", m{}, 400},
			{"com.microsoft:cancel-scheduled-message", m{"sequence-numbers": []any{int64(9)}}, 404},
			{"com.microsoft:schedule-message", m{}, 400},
			{"com.microsoft:schedule-message", m{"messages": []any{"x"}}, 400},
			{"com.microsoft:schedule-message", message([]byte("garbage")), 400},
			{"com.microsoft:schedule-message", message(encoded(amqp.NewMessage(nil))), 400},
			{"com.microsoft:schedule-message", message(encoded(amqp.NewMessage(make([]byte, 2000)))), 413},
			{"com.microsoft:renew-session-lock", m{"session-id": "a"}, 410},
			{"com.microsoft:get-session-state", m{}, 410},
			{"com.microsoft:set-session-state", m{"session-id": "a", "session-state": []byte("x")}, 410},
			{"com.microsoft:get-message-sessions", m{}, 400},
		}},
		{"sessions/$management", []struct {
			operation string
			body      any
			status    int32
		}{{"com.microsoft:schedule-message", message(soon), 403}}},
		{"q/$DeadLetterQueue/$management", []struct {
			operation string
			body      any
			status    int32
		}{
			{"com.microsoft:schedule-message", message(soon), 403},
			{"com.microsoft:update-disposition", m{"lock-tokens": []amqp.UUID{{1}}, "disposition-status": "suspended"}, 403},
		}},
	} {
		ask := asker(t, session, node.address)
		for _, r := range node.requests {
			a := ask(&amqp.Message{Value: r.body, ApplicationProperties: m{"operation": r.operation}})
			if got := a.ApplicationProperties["statusCode"]; got != r.status {
				t.Errorf("%s: %s of %v: %v, want %d", node.address, r.operation, r.body, got, r.status)
			}
		}
	}
	wantStored(t, s, "q", 0)
}

// TestReceiveBySequenceNumberDestructive: deferred messages can be received and
// deleted in one step.
func TestReceiveBySequenceNumberDestructive(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	m := one(t, r)
	if err := r.DeferMessage(within(t), m, nil); err != nil {
		t.Fatal(err)
	}
	d, err := receiver(t, c, "q", destructive).ReceiveDeferredMessages(within(t), []int64{*m.SequenceNumber}, nil)
	if err != nil || len(d) != 1 || string(d[0].Body) != "x" {
		t.Errorf("%d messages, %v", len(d), err)
	}
	wantStored(t, s, "q", 0)
}
