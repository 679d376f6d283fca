package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"github.com/queue-runtime/queue/driver"
)

// connect returns a provider over f that ends with the test.
func connect(t *testing.T, f *fakeSQS, o *Options) *Broker {
	t.Helper()
	if o == nil {
		o = &Options{}
	}
	if err := o.validate(); err != nil {
		t.Fatal(err)
	}
	p := newBroker(f, o)
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		f.polls.Wait() // a bubble must not end before
	})
	return p
}

func open(t *testing.T, p *Broker, name string, o *driver.QueueOptions) driver.Queue {
	t.Helper()
	q, err := p.Open(t.Context(), name, o)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return q
}

// send sends bodies in one call, each with the session before its first digit:
// "a1" is of session a. On a standard queue there are no sessions.
func send(t *testing.T, q driver.Queue, bodies ...string) {
	t.Helper()
	m := make([]*driver.Message, len(bodies))
	for i, b := range bodies {
		m[i] = &driver.Message{ID: fmt.Sprintf("id-%s-%d", b, time.Now().UnixNano()), Body: []byte(b)}
		if q.Capabilities().Sessions != driver.None {
			m[i].SessionID = b[:1]
		}
	}
	for i, r := range q.Send(t.Context(), m) {
		if r.Err != nil || r.BrokerID == "" {
			t.Fatalf("send %s: %+v", bodies[i], r)
		}
	}
}

// receive returns what one Receive brings.
func receive(t *testing.T, s driver.Source, max int, wait time.Duration) []*driver.Delivery {
	t.Helper()
	d, err := s.Receive(t.Context(), max, wait)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return d
}

// receiveBodies checks what one Receive brings.
func receiveBodies(t *testing.T, s driver.Source, max int, wait time.Duration, want ...string) []*driver.Delivery {
	t.Helper()
	d := receive(t, s, max, wait)
	var got []string
	for _, d := range d {
		got = append(got, string(d.Body))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("received %v, want %v", got, want)
	}
	return d
}

func settle(t *testing.T, s driver.Source, kind driver.SettleKind, d ...*driver.Delivery) {
	t.Helper()
	for i, err := range settleErrors(s, kind, d...) {
		if err != nil {
			t.Fatalf("%s of %q: %v", kind, d[i].Body, err)
		}
	}
}

func settleErrors(s driver.Source, kind driver.SettleKind, d ...*driver.Delivery) []error {
	list := make([]driver.Settlement, len(d))
	for i := range d {
		list[i] = driver.Settlement{Delivery: d[i], Kind: kind, Reason: "test", Description: "a test"}
	}
	return s.Settle(context.Background(), list)
}

func renewErrors(s driver.Source, d []*driver.Delivery) []error {
	var errs []error
	for _, r := range s.Renew(context.Background(), d) {
		errs = append(errs, r.Err)
	}
	return errs
}

func wantError(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
}

func accept(t *testing.T, q driver.Queue, wait time.Duration) driver.Session {
	t.Helper()
	s, err := q.AcceptSession(t.Context(), "", wait)
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	return s
}

// apiError is an error of the service, as the SDK returns it.
type apiError struct{ code, text string }

func (e *apiError) Error() string                 { return e.code }
func (e *apiError) ErrorCode() string             { return e.code }
func (e *apiError) ErrorMessage() string          { return e.text }
func (e *apiError) ErrorFault() smithy.ErrorFault { return smithy.FaultUnknown }
