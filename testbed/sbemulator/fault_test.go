package sbemulator_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

func inject(t *testing.T, s *sbemulator.Server, f sbemulator.Fault) *sbemulator.Injection {
	t.Helper()
	return must[*sbemulator.Injection](t)(s.Inject(f))
}

func wantHits(t *testing.T, i *sbemulator.Injection, n int) {
	t.Helper()
	if got := i.Hits(); got != n {
		t.Errorf("the fault befell %d operations, want %d", got, n)
	}
}

func TestFaultOnSend(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	post := func(body string) error { return sender.SendMessage(within(t), text(body), nil) }

	f := inject(t, s, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.Refuse, Skip: 1, Times: 1, Condition: "amqp:not-allowed", Description: "not now"})
	if err := post("skipped"); err != nil {
		t.Error(err)
	}
	wantCondition(t, post("refused"), "amqp:not-allowed")
	if err := post("after"); err != nil {
		t.Error(err)
	}
	wantHits(t, f, 1)
	wantStored(t, s, "q", 2)

	// Cut before it took effect: the client's retry stores it once.
	f = inject(t, s, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.Drop, Times: 1, Queue: "Q"})
	if err := post("dropped"); err != nil {
		t.Error(err)
	}
	wantHits(t, f, 1)
	wantStored(t, s, "q", 3)

	// Cut after: the retry stores it a second time.
	f = inject(t, s, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.DropAfter, Times: 1})
	if err := post("twice"); err != nil {
		t.Error(err)
	}
	wantHits(t, f, 1)
	if m := wantStored(t, s, "q", 5); string(m[3].Body) != "twice" || string(m[4].Body) != "twice" {
		t.Errorf("stored %s, %s", m[3].Body, m[4].Body)
	}

	f = inject(t, s, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.Detach, Times: 1, Condition: "amqp:link:detach-forced"})
	if err := post("detached"); err != nil {
		t.Error(err)
	}
	wantHits(t, f, 1)
	wantStored(t, s, "q", 6)
}

func TestFaultDelay(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", text("x")) // the connection stands
	f := inject(t, s, sbemulator.Fault{On: sbemulator.OnSend, Delay: 30 * time.Millisecond})
	begin := time.Now()
	send(t, c, "q", text("y"))
	if d := time.Since(begin); d < 30*time.Millisecond {
		t.Errorf("sent in %v", d)
	}
	f.Remove()
	f.Remove()
	wantHits(t, f, 1)
	inject(t, s, sbemulator.Fault{On: sbemulator.OnSend, Delay: time.Hour}) // Close does not wait for it
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	if err := sender.SendMessage(briefly(t), text("z"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	s.DropConnections() // for the client to close in peace
}

func TestFaultOnSettle(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", text("a"), text("b"), text("c"))
	r := receiver(t, c, "q", nil)
	m := many(t, r, 3)
	inject(t, s, sbemulator.Fault{On: sbemulator.OnSettle, Action: sbemulator.Refuse, Times: 1, Condition: "com.microsoft:message-lock-lost"})
	wantCode(t, r.CompleteMessage(within(t), m[0], nil), azservicebus.CodeLockLost)
	wantStored(t, s, "q", 3)
	inject(t, s, sbemulator.Fault{On: sbemulator.OnSettle, Action: sbemulator.DropAfter, Times: 1})
	ctx, cancel := context.WithCancel(within(t))
	answer := make(chan error, 1)
	go func() { answer <- r.CompleteMessage(ctx, m[1], nil) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for left := 3; left == 3 && ctx.Err() == nil; <-tick.C {
		st, err := s.Stats("q")
		if err != nil {
			t.Fatal(err)
		}
		left = st.Active + st.Locked
	}
	cancel()
	if err := <-answer; err == nil {
		t.Error("the answer arrived over a connection that was cut")
	}
	wantStored(t, s, "q", 2)
	r = receiver(t, connect(t, s), "q", nil)
	token := func(i int) *azservicebus.ReceivedMessage {
		return &azservicebus.ReceivedMessage{LockToken: m[i].LockToken}
	}
	wantCode(t, r.CompleteMessage(within(t), token(1), nil), azservicebus.CodeLockLost) // it was completed
	if err := r.CompleteMessage(within(t), token(2), nil); err != nil {
		t.Error(err)
	}
}

func TestFaultOnDeliver(t *testing.T) {
	s := start(t, frozen, nil)
	c := connect(t, s)
	send(t, c, "q", text("x"))
	f := inject(t, s, sbemulator.Fault{On: sbemulator.OnDeliver, Action: sbemulator.Detach, Times: 1})
	r := receiver(t, c, "q", nil)
	m, err := r.ReceiveMessages(within(t), 1, nil)
	if len(m) > 0 || err != nil { // the client says nothing, once
		t.Errorf("%d messages, %v", len(m), err)
	}
	wantHits(t, f, 1)
	if got := wantStored(t, s, "q", 1); got[0].Locked || got[0].DeliveryCount != 0 {
		t.Errorf("stored %+v", got[0])
	}
	f = inject(t, s, sbemulator.Fault{On: sbemulator.OnDeliver, Action: sbemulator.Drop, Times: 1})
	if m, _ := r.ReceiveMessages(within(t), 1, nil); len(m) > 0 {
		t.Error("received what was lost on its way")
	}
	wantHits(t, f, 1)
	if got := wantStored(t, s, "q", 1); !got[0].Locked {
		t.Error("a message that is on its way is not locked")
	}
	advance(t, s, time.Minute)
	if m := one(t, receiver(t, connect(t, s), "q", nil)); m.DeliveryCount != 2 {
		t.Errorf("delivery count %d", m.DeliveryCount)
	}
}

func TestFaultOnAttachClaimManage(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	ask := func() error {
		_, err := receiver(t, c, "q", nil).PeekMessages(within(t), 1, nil)
		return err
	}
	inject(t, s, sbemulator.Fault{On: sbemulator.OnAttach, Action: sbemulator.Refuse, Times: 1, Condition: "com.microsoft:entity-disabled"})
	wantCondition(t, ask(), "com.microsoft:entity-disabled")
	inject(t, s, sbemulator.Fault{On: sbemulator.OnClaim, Action: sbemulator.Refuse, Times: 1, Status: 401})
	wantCode(t, ask(), azservicebus.CodeUnauthorizedAccess)
	f := inject(t, s, sbemulator.Fault{On: sbemulator.OnManage, Action: sbemulator.Refuse, Times: 1, Status: 503})
	if err := ask(); err != nil { // transient: retried
		t.Error(err)
	}
	wantHits(t, f, 1)
	f = inject(t, s, sbemulator.Fault{On: sbemulator.OnManage, Action: sbemulator.DropAfter, Times: 1})
	if err := ask(); err != nil {
		t.Error(err)
	}
	wantHits(t, f, 1)
}

func TestFaultOnConnect(t *testing.T) {
	s := start(t, nil, nil)
	for _, a := range []sbemulator.Action{sbemulator.Drop, sbemulator.Refuse} {
		f := inject(t, s, sbemulator.Fault{On: sbemulator.OnConnect, Action: a, Times: 1, Condition: "amqp:connection:forced"})
		conn, err := amqp.Dial(within(t), "amqp://"+s.Addr().String(), &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()})
		if err == nil {
			<-conn.Done()
			err = conn.Err()
		}
		if err == nil {
			t.Error("the connection stands")
		}
		if a == sbemulator.Refuse {
			wantCondition(t, errors.Unwrap(err), "amqp:connection:forced")
		}
		wantHits(t, f, 1)
	}
	send(t, connect(t, s), "q", text("x"))
}

func TestInjectRefuses(t *testing.T) {
	s := start(t, nil, nil)
	for _, f := range []sbemulator.Fault{
		{}, {On: 99}, {On: sbemulator.OnConnect}, {On: sbemulator.OnDeliver, Action: sbemulator.Refuse},
		{On: sbemulator.OnSend, Skip: -1}, {On: sbemulator.OnSend, Times: -1}, {On: sbemulator.OnSend, Delay: -1},
		{On: sbemulator.OnDeliver, Action: sbemulator.Drop, Delay: 1}, {On: sbemulator.OnSend, Action: 99}, {On: sbemulator.OnManage, Action: sbemulator.Refuse, Status: 1000},
	} {
		if _, err := s.Inject(f); err == nil {
			t.Errorf("%+v was taken", f)
		}
	}
}

// TestDetachLinks: a client that is receiving attaches anew and goes on.
func TestDetachLinks(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	r := receiver(t, c, "q", nil)
	none(t, r)
	got := make(chan int, 1)
	go func() {
		m, _ := r.ReceiveMessages(within(t), 1, nil)
		got <- len(m)
	}()
	n := must[int](t)(s.DetachLinks("q", "", "moved"))
	if n != 3 { // its own and two of $management
		t.Errorf("%d links detached", n)
	}
	if n := <-got; n != 0 {
		t.Errorf("%d messages", n)
	}
	if _, err := s.DetachLinks("none", "", ""); !errors.Is(err, sbemulator.ErrQueueNotFound) {
		t.Error(err)
	}
	send(t, c, "q", text("x"))
	if m := one(t, r); string(m.Body) != "x" {
		t.Errorf("received %s", m.Body)
	}
}

// TestDropUnderLoad cuts connections while messages are sent and received:
// nothing that was confirmed is lost.
func TestDropUnderLoad(t *testing.T) {
	s := start(t, nil, &sbemulator.QueueOptions{MaxDeliveryCount: 1000, LockDuration: time.Second})
	const total = 200
	sent := make(chan struct{})
	received := make(chan map[string]bool)
	go func() {
		seen := map[string]bool{}
		defer func() { received <- seen }()
		for short := 200 * time.Millisecond; ; short = min(2*short, 10*time.Second) { // longer on a slow machine
			if err := drain(s, seen, short); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-sent:
				if st, err := s.Stats("q"); err != nil || st.Active+st.Locked == 0 {
					return
				}
			default:
			}
		}
	}()
	sender := must[*azservicebus.Sender](t)(connect(t, s).NewSender("q", nil))
	for i := range total {
		if i%20 == 19 {
			s.DropConnections()
		}
		if err := sender.SendMessage(within(t), text(number(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	close(sent)
	if seen := <-received; len(seen) != total {
		t.Errorf("%d of %d messages were received", len(seen), total)
	}
}

// drain receives and completes over a new connection until that breaks, or for a
// short time. The client would go on with it for long.
func drain(s *sbemulator.Server, seen map[string]bool, short time.Duration) error {
	c, err := azservicebus.NewClientFromConnectionString(s.ConnectionString(), &azservicebus.ClientOptions{RetryOptions: quick})
	if err != nil {
		return err
	}
	r, err := c.NewReceiverForQueue("q", nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), short)
	defer cancel()
	for ctx.Err() == nil {
		m, err := r.ReceiveMessages(ctx, 10, nil)
		if err != nil {
			break
		}
		for _, m := range m {
			seen[string(m.Body)] = true
			if err := r.CompleteMessage(ctx, m, nil); err != nil {
				break // it comes again
			}
		}
	}
	closing, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	_ = c.Close(closing)
	return nil
}
