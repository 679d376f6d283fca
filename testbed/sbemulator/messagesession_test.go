package sbemulator_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

func sessional() *sbemulator.QueueOptions {
	return &sbemulator.QueueOptions{RequiresSession: true, LockDuration: 10 * time.Second, MaxDeliveryCount: 3}
}

func accept(t *testing.T, c *azservicebus.Client, id string) *azservicebus.SessionReceiver {
	t.Helper()
	return must[*azservicebus.SessionReceiver](t)(c.AcceptSessionForQueue(within(t), "q", id, nil))
}

func acceptNext(t *testing.T, c *azservicebus.Client) *azservicebus.SessionReceiver {
	t.Helper()
	return must[*azservicebus.SessionReceiver](t)(c.AcceptNextSessionForQueue(within(t), "q", nil))
}

func TestSessionByName(t *testing.T) {
	s := start(t, frozen, sessional())
	c := connect(t, s)
	send(t, c, "q", inSession("a", "a1"), inSession("b", "b1"), inSession("a", "a2"))
	a := accept(t, c, "a")
	if a.SessionID() != "a" {
		t.Errorf("session %q", a.SessionID())
	}
	if d := a.LockedUntil().Sub(s.Now()); d < 10*time.Second-2*time.Millisecond || d > 10*time.Second {
		t.Errorf("locked for %v", d)
	}
	_, err := c.AcceptSessionForQueue(within(t), "q", "a", nil)
	wantCondition(t, err, "com.microsoft:session-cannot-be-locked")
	m := many(t, a, 2)
	if string(m[0].Body) != "a1" || string(m[1].Body) != "a2" || *m[0].SessionID != "a" {
		t.Errorf("received %s, %s", m[0].Body, m[1].Body)
	}
	for _, m := range m {
		if err := a.CompleteMessage(within(t), m, nil); err != nil {
			t.Error(err)
		}
	}
	none(t, a)
	if err := a.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	empty := accept(t, c, "") // a session may have an empty name, and no messages
	if empty.SessionID() != "" {
		t.Errorf("session %q", empty.SessionID())
	}
	wantStored(t, s, "q", 1)
}

func TestNextSession(t *testing.T) {
	s := start(t, nil, sessional())
	c := connect(t, s)
	send(t, c, "q", inSession("b", "b1"), inSession("a", "a1"), inSession("b", "b2"))
	first, second := acceptNext(t, c), acceptNext(t, c)
	if first.SessionID() != "b" || second.SessionID() != "a" {
		t.Errorf("sessions %q, %q: want the one with the oldest message first", first.SessionID(), second.SessionID())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := c.AcceptNextSessionForQueue(ctx, "q", nil)
	if code := (*azservicebus.Error)(nil); !errors.Is(err, context.DeadlineExceeded) && (!errors.As(err, &code) || code.Code != azservicebus.CodeTimeout) {
		t.Errorf("with no session free: %v", err)
	}
}

// TestNextSessionWaits holds an attach until a session comes free, by a new
// message or by its holder's leaving.
func TestNextSessionWaits(t *testing.T) {
	for name, free := range map[string]func(t *testing.T, s *sbemulator.Server, c *azservicebus.Client, a *azservicebus.SessionReceiver){
		"new message": func(t *testing.T, _ *sbemulator.Server, c *azservicebus.Client, _ *azservicebus.SessionReceiver) {
			send(t, c, "q", inSession("b", "b1"))
		},
		"holder closes": func(t *testing.T, _ *sbemulator.Server, _ *azservicebus.Client, a *azservicebus.SessionReceiver) {
			if err := a.Close(within(t)); err != nil {
				t.Error(err)
			}
		},
		"lock expires": func(t *testing.T, s *sbemulator.Server, _ *azservicebus.Client, _ *azservicebus.SessionReceiver) {
			advance(t, s, 10*time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, frozen, sessional())
			c := connect(t, s)
			send(t, c, "q", inSession("a", "a1"))
			a := accept(t, c, "a")
			got := make(chan error, 1)
			other := connect(t, s) // one client opens its links in turn
			go func() {
				_, err := other.AcceptNextSessionForQueue(within(t), "q", nil)
				got <- err
			}()
			for waitingFor(t, s) == 0 {
				select {
				case err := <-got:
					t.Fatal("accepted before a session was free:", err)
				default:
				}
			}
			free(t, s, c, a)
			if err := <-got; err != nil {
				t.Error(err)
			}
		})
	}
}

// waitingFor is how many attaches to "q" wait for a session.
func waitingFor(t *testing.T, s *sbemulator.Server) int {
	t.Helper()
	return must[sbemulator.Stats](t)(s.Stats("q")).Waiting
}

func TestSessionOrderUnderFailure(t *testing.T) {
	s := start(t, nil, sessional())
	c := connect(t, s)
	send(t, c, "q", inSession("a", "1"), inSession("a", "2"))
	r := accept(t, c, "a")
	if err := r.AbandonMessage(within(t), one(t, r), nil); err != nil {
		t.Fatal(err)
	}
	if m := one(t, r); string(m.Body) != "1" || m.DeliveryCount != 2 {
		t.Errorf("received %s, delivery %d; the abandoned one comes first", m.Body, m.DeliveryCount)
	}
}

func TestSessionLockExpiry(t *testing.T) {
	s := start(t, frozen, sessional())
	c := connect(t, s)
	send(t, c, "q", inSession("a", "a1"), inSession("a", "a2"))
	r := accept(t, c, "a")
	m := one(t, r)
	for range 3 {
		advance(t, s, 9*time.Second)
		if err := r.RenewSessionLock(within(t), nil); err != nil {
			t.Fatal(err)
		}
	}
	if d := r.LockedUntil().Sub(s.Now()); d < 10*time.Second-2*time.Millisecond {
		t.Errorf("renewed to %v", d)
	}
	advance(t, s, 10*time.Second)
	left := wantStored(t, s, "q", 2)
	if left[0].Locked || left[0].DeliveryCount != 1 || left[1].DeliveryCount != 0 {
		t.Errorf("after expiry %+v: what was held counts as failed, and nothing else", left)
	}
	token := &azservicebus.ReceivedMessage{LockToken: m.LockToken}
	other := connect(t, s)
	b := accept(t, other, "a")
	if m := one(t, b); string(m.Body) != "a1" || m.DeliveryCount != 2 {
		t.Errorf("received %s, delivery %d", m.Body, m.DeliveryCount)
	}
	if err := b.CompleteMessage(briefly(t), token, nil); err == nil {
		t.Error("settled by the token of a lost session")
	}
	if err := r.RenewSessionLock(briefly(t), nil); err == nil {
		t.Error("renewed a lost session")
	}
}

func TestSessionCloseIsNotCounted(t *testing.T) {
	s := start(t, nil, sessional())
	c := connect(t, s)
	send(t, c, "q", inSession("a", "a1"))
	r := accept(t, c, "a")
	one(t, r)
	if err := r.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if m := one(t, accept(t, c, "a")); m.DeliveryCount != 1 {
		t.Errorf("delivery count %d", m.DeliveryCount)
	}
}

func TestExpireSession(t *testing.T) {
	s := start(t, nil, sessional())
	c := connect(t, s)
	send(t, c, "q", inSession("a", "a1"))
	r := accept(t, c, "a")
	m := one(t, r)
	if err := s.ExpireSession("q", "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.ExpireSession("q", "a"); !errors.Is(err, sbemulator.ErrSessionNotFound) {
		t.Error("expired twice:", err)
	}
	if err := r.CompleteMessage(briefly(t), m, nil); err == nil {
		t.Error("settled in a lost session")
	}
	if m := wantStored(t, s, "q", 1); m[0].DeliveryCount != 1 {
		t.Errorf("delivery count %d", m[0].DeliveryCount)
	}
}

func TestSessionState(t *testing.T) {
	s := start(t, frozen, sessional())
	c := connect(t, s)
	r := accept(t, c, "a")
	state := func(r *azservicebus.SessionReceiver) []byte {
		return must[[]byte](t)(r.GetSessionState(within(t), nil))
	}
	if got := state(r); got != nil {
		t.Errorf("state %q before any was set", got)
	}
	if err := r.SetSessionState(within(t), []byte("halfway"), nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	r = accept(t, c, "a")
	if got := state(r); string(got) != "halfway" {
		t.Errorf("state %q outlived the receiver", got)
	}
	if err := r.SetSessionState(within(t), nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := state(r); got != nil {
		t.Errorf("state %q after it was cleared", got)
	}
}

func TestListSessions(t *testing.T) {
	s := start(t, frozen, sessional())
	c := connect(t, s)
	var m []*azservicebus.Message
	for i := range 150 { // more than a page
		m = append(m, inSession("s"+number(i), "x"))
	}
	send(t, c, "q", m...)
	r := accept(t, c, "state only")
	if err := r.SetSessionState(within(t), []byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	list := func(o *azservicebus.ListSessionsOptions) (ids []string) {
		t.Helper()
		for p := c.NewListSessionsForQueuePager("q", o); p.More(); {
			page := must[azservicebus.ListSessionsResponse](t)(p.NextPage(within(t)))
			ids = append(ids, page.Sessions...)
		}
		return ids
	}
	if ids := list(nil); len(ids) != 151 || ids[0] != "s0000" || ids[150] != "state only" {
		t.Errorf("%d sessions: %v", len(ids), ids)
	}
	after := func(d time.Duration) *azservicebus.ListSessionsOptions {
		return &azservicebus.ListSessionsOptions{SessionStateUpdatedAfter: to.Ptr(s.Now().Add(d))}
	}
	if ids := list(after(-time.Second)); len(ids) != 1 || ids[0] != "state only" {
		t.Errorf("updated since: %v", ids)
	}
	if ids := list(after(time.Second)); len(ids) != 0 {
		t.Errorf("updated since later: %v", ids)
	}
}

func TestSessionDeferred(t *testing.T) {
	s := start(t, nil, sessional())
	c := connect(t, s)
	send(t, c, "q", inSession("a", "a1"))
	r := accept(t, c, "a")
	m := one(t, r)
	if err := r.DeferMessage(within(t), m, nil); err != nil {
		t.Fatal(err)
	}
	numbers := []int64{*m.SequenceNumber}
	other := accept(t, connect(t, s), "b")
	if _, err := other.ReceiveDeferredMessages(within(t), numbers, nil); err == nil {
		t.Error("a deferred message was received from another session")
	}
	d := must[[]*azservicebus.ReceivedMessage](t)(r.ReceiveDeferredMessages(within(t), numbers, nil))
	if err := r.CompleteMessage(within(t), d[0], nil); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, "q", 0)
}

func TestSessionRules(t *testing.T) {
	s := start(t, nil, sessional())
	c := connect(t, s)
	if err := s.CreateQueue("plain", nil); err != nil {
		t.Fatal(err)
	}
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	wantCondition(t, sender.SendMessage(within(t), text("no session"), nil), "amqp:not-allowed")
	_, err := receiver(t, c, "q", nil).ReceiveMessages(within(t), 1, nil)
	wantCondition(t, err, "amqp:not-allowed")
	_, err = c.AcceptSessionForQueue(within(t), "plain", "a", nil)
	wantCondition(t, err, "amqp:not-allowed")
	send(t, c, "plain", inSession("ignored", "x"))
	if m := one(t, receiver(t, c, "plain", nil)); *m.SessionID != "ignored" {
		t.Errorf("session ID %v", m.SessionID)
	}
	// The dead letters of such a queue are received without sessions.
	send(t, c, "q", inSession("a", "dead"))
	r := accept(t, c, "a")
	if err := r.DeadLetterMessage(within(t), one(t, r), nil); err != nil {
		t.Fatal(err)
	}
	if m := one(t, receiver(t, c, "q", deadLetters)); *m.SessionID != "a" {
		t.Errorf("session ID %v", m.SessionID)
	}
}

// TestSessionHeldAfterDrop: by default a session is free when its holder's
// connection is lost; with KeepSessionLocks only when its lock runs out.
func TestSessionHeldAfterDrop(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) { holdAfterDrop(t, keep) })
	}
}

func holdAfterDrop(t *testing.T, keep bool) {
	s := start(t, &sbemulator.Options{FrozenClock: true, KeepSessionLocks: keep}, sessional())
	c := connect(t, s)
	send(t, c, "q", inSession("a", "a1"))
	one(t, accept(t, c, "a"))
	s.DropConnections()
	other := connect(t, s)
	want := uint32(1)
	if keep {
		_, err := other.AcceptSessionForQueue(within(t), "q", "a", nil)
		wantCondition(t, err, "com.microsoft:session-cannot-be-locked")
		advance(t, s, 10*time.Second)
		want = 2
	}
	if m := one(t, accept(t, other, "a")); m.DeliveryCount != want {
		t.Errorf("delivery count %d, want %d", m.DeliveryCount, want)
	}
}
