package sbemulator_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

func TestUnknownQueue(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("none", nil))
	wantCode(t, sender.SendMessage(within(t), text("x"), nil), azservicebus.CodeNotFound)
	_, err := receiver(t, c, "none", nil).ReceiveMessages(within(t), 1, nil)
	wantCode(t, err, azservicebus.CodeNotFound)
	sender = must[*azservicebus.Sender](t)(c.NewSender("q/$DeadLetterQueue", nil))
	wantCondition(t, sender.SendMessage(within(t), text("x"), nil), "amqp:not-allowed")
}

func TestAutoCreate(t *testing.T) {
	s := start(t, &sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{MaxDeliveryCount: 1}}, nil)
	c := connect(t, s)
	send(t, c, "Made/Here", text("x"))
	r := receiver(t, c, "made/here", nil)
	if err := r.AbandonMessage(within(t), one(t, r), nil); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, "Made/Here/$DeadLetterQueue", 1)
	if got := strings.Join(s.Queues(), " "); got != "Made/Here q" {
		t.Errorf("queues %s", got)
	}
	sender := must[*azservicebus.Sender](t)(c.NewSender("no spaces", nil))
	wantCode(t, sender.SendMessage(within(t), text("x"), nil), azservicebus.CodeNotFound)
}

func TestDeleteQueue(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	m := one(t, r)
	if err := s.DeleteQueue("q"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteQueue("q"); !errors.Is(err, sbemulator.ErrQueueNotFound) {
		t.Error("deleted twice:", err)
	}
	if err := r.CompleteMessage(briefly(t), m, nil); err == nil {
		t.Error("completed a message of a deleted queue")
	}
	if err := s.CreateQueue("q", nil); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, "q", 0)
}

func TestQueueOptions(t *testing.T) {
	s := start(t, nil, nil)
	if err := s.CreateQueue("Q", nil); !errors.Is(err, sbemulator.ErrQueueExists) {
		t.Error("names differ by case:", err)
	}
	for _, name := range []string{"", "/q", "q/", "a b", "q\x00", "ä", strings.Repeat("x", 261), "a$b"} {
		if err := s.CreateQueue(name, nil); !errors.Is(err, sbemulator.ErrInvalidName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, o := range []sbemulator.QueueOptions{
		{LockDuration: -1}, {LockDuration: 301e9}, {MaxDeliveryCount: -1}, {DefaultTTL: -1},
		{DuplicateDetectionWindow: -1}, {MaxMessageSize: -1}, {MaxMessageSize: 100<<20 + 1}, {MaxBytes: -1},
	} {
		if err := s.CreateQueue("x", &o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestQueueFull(t *testing.T) {
	s := start(t, nil, &sbemulator.QueueOptions{MaxBytes: 1000})
	c := connect(t, s)
	send(t, c, "q", text(strings.Repeat("x", 500)))
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	wantCondition(t, sender.SendMessage(within(t), text(strings.Repeat("x", 500)), nil), "amqp:resource-limit-exceeded")
	r := receiver(t, c, "q", nil)
	if err := r.DeadLetterMessage(within(t), one(t, r), nil); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, sender.SendMessage(within(t), text(strings.Repeat("x", 500)), nil), "amqp:resource-limit-exceeded") // dead letters count
	dr := receiver(t, c, "q", deadLetters)
	if err := dr.CompleteMessage(within(t), one(t, dr), nil); err != nil {
		t.Fatal(err)
	}
	if err := sender.SendMessage(within(t), text(strings.Repeat("x", 500)), nil); err != nil {
		t.Error(err)
	}
}

// What surrounds a message fills the queue, too, and so do the states of sessions.
func TestQueueFilledOtherwise(t *testing.T) {
	const most = 100_000
	big := strings.Repeat("x", 4000)
	for name, m := range map[string]*azservicebus.AMQPAnnotatedMessage{
		"empty":       {},
		"annotations": {MessageAnnotations: map[any]any{"own": big}},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil, &sbemulator.QueueOptions{MaxBytes: most})
			sender := must[*azservicebus.Sender](t)(connect(t, s).NewSender("q", nil))
			m.Body.Data = [][]byte{nil}
			var err error
			sent := 0
			for ; err == nil && sent < 1000; sent++ {
				err = sender.SendAMQPAnnotatedMessage(within(t), m, nil)
			}
			wantCondition(t, err, "amqp:resource-limit-exceeded")
			if name == "annotations" && sent > most/len(big) {
				t.Errorf("%d messages of %d bytes were taken", sent, len(big))
			}
		})
	}
	t.Run("states", func(t *testing.T) {
		s := start(t, nil, &sbemulator.QueueOptions{MaxBytes: most, RequiresSession: true})
		c := connect(t, s)
		a, b := accept(t, c, "a"), accept(t, c, "b")
		half := []byte(strings.Repeat("x", most*6/10))
		for range 3 { // the same state again needs no more room
			if err := a.SetSessionState(within(t), half, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.SetSessionState(within(t), half, nil); err == nil {
			t.Error("two states of 60 % were taken")
		}
		if err := a.SetSessionState(within(t), nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := b.SetSessionState(within(t), half, nil); err != nil {
			t.Errorf("with room again: %v", err)
		}
		if st, err := s.Stats("q"); err != nil || st.Bytes != int64(len(half)) {
			t.Errorf("%d bytes, %v", st.Bytes, err)
		}
	})
}

// A session whose name no message could have cannot be accepted.
func TestSessionNameTooLong(t *testing.T) {
	s := start(t, nil, &sbemulator.QueueOptions{RequiresSession: true})
	_, err := connect(t, s).AcceptSessionForQueue(within(t), "q", strings.Repeat("x", 129), nil)
	wantCondition(t, err, "amqp:not-allowed")
}
