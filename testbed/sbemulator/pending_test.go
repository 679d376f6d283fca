package sbemulator

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

// Incomplete transfers, messages that no client takes, and frames beyond a client's
// window are bounded for all clients together, and the room comes back.
func TestPending(t *testing.T) {
	s, err := Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.CreateQueue("q", nil); err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pendingLimit = n
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := amqp.Dial(ctx, "amqp://"+s.Addr().String(), &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()})
	if err != nil {
		t.Fatal(err)
	}
	session, err := conn.NewSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	send := func(size int) error {
		sender, err := session.NewSender(ctx, "q", nil)
		if err != nil {
			return err
		}
		defer func() { _ = sender.Close(ctx) }()
		return sender.Send(ctx, amqp.NewMessage(make([]byte, size)), nil)
	}
	const size = 200 << 10 // several frames
	if err := send(size); err != nil {
		t.Fatal(err)
	}
	limit(size / 2)
	var refused *amqp.Error
	if err := send(size); !errors.As(err, &refused) || refused.Condition != amqp.ErrCondResourceLimitExceeded {
		t.Errorf("beyond the limit: %v", err)
	}
	if err := send(1 << 10); err != nil {
		t.Errorf("within the limit: %v", err)
	}
	limit(2 * size)
	sender, err := session.NewSender(ctx, "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 4 { // one after the other
		if err := sender.Send(ctx, amqp.NewMessage(make([]byte, size)), nil); err != nil {
			t.Fatalf("with room again, message %d: %v", n, err)
		}
	}
	c, err := azservicebus.NewClientFromConnectionString(s.ConnectionString(), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.NewReceiverForQueue("q", nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 6; {
		m, err := r.ReceiveMessages(ctx, 6, nil)
		if err != nil {
			t.Fatal(err)
		}
		n += len(m)
	}
	if err := errors.Join(c.Close(ctx), conn.Close()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if s.pending != 0 || s.links != 0 {
		t.Errorf("%d bytes and %d links are left", s.pending, s.links)
	}
}

// Links are bounded for all clients together.
func TestLinks(t *testing.T) {
	s, err := Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.CreateQueue("q", nil); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.links = maxLinks - 1
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := amqp.Dial(ctx, "amqp://"+s.Addr().String(), &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	attach := func() error {
		session, err := conn.NewSession(ctx, nil)
		if err != nil {
			return err
		}
		_, err = session.NewSender(ctx, "q", nil)
		return err
	}
	if err := attach(); err != nil {
		t.Fatal(err)
	}
	if attach() == nil {
		t.Error("one link too many was attached")
	}
}
