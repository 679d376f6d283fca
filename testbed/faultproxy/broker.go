package faultproxy

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// NewBroker returns b behind faults, for brokers that no network leads to.
func NewBroker(b driver.Broker, f *Faults) driver.Broker { return broker{b, f} }

type broker struct {
	driver.Broker
	faults *Faults
}

func (b broker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	var q driver.Queue
	err := b.faults.call(ctx, func() (err error) {
		q, err = b.Broker.Open(ctx, name, o)
		return err
	})
	if q == nil {
		return nil, err
	}
	if err != nil {
		_ = q.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	return queue{q, b.faults}, nil
}

// silence is how long a call hangs at the most: a driver bounds its requests.
const silence = 500 * time.Millisecond

var errAway = driver.Errorf(driver.Unavailable, "no answer")

// call makes a call that something may befall: its error is then that of a broker that
// cannot be reached, or that did not answer.
func (f *Faults) call(ctx context.Context, do func() error) error {
	fault := f.draw(Delay, Drop, LoseAnswer, Silence)
	switch fault {
	case Delay:
		if !f.pause(ctx) {
			return ctx.Err()
		}
	case Drop:
		return errAway
	case None, LoseAnswer, Cut, HalfClose, Silence, Refuse, WrongClock, Reorder:
	}
	hangs := fault == Silence
	if hangs && f.below(2) == 0 {
		return hang(ctx)
	}
	err := do()
	switch {
	case hangs:
		return hang(ctx)
	case fault == LoseAnswer:
		return errAway
	}
	return err
}

// hang waits like a call that nothing answers.
func hang(ctx context.Context) error {
	timer := time.NewTimer(silence)
	defer timer.Stop()
	select {
	case <-timer.C:
		return errAway
	case <-ctx.Done():
		return ctx.Err()
	}
}

// each makes a call with an error for each of n.
func (f *Faults) each(ctx context.Context, n int, do func() []error) []error {
	var errs []error
	err := f.call(ctx, func() error {
		errs = do()
		return nil
	})
	if err == nil {
		return errs
	}
	errs = make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// source is what a queue and a session have in common.
type source struct {
	driver.Source
	faults *Faults
}

func (s source) Receive(ctx context.Context, limit int, wait time.Duration) ([]*driver.Delivery, error) {
	var d []*driver.Delivery
	err := s.faults.call(ctx, func() (err error) {
		d, err = s.Source.Receive(ctx, limit, wait)
		return err
	})
	if err != nil {
		return nil, err // what had come stays locked
	}
	return d, nil
}

func (s source) Settle(ctx context.Context, all []driver.Settlement) []error {
	return s.faults.each(ctx, len(all), func() []error { return s.Source.Settle(ctx, all) })
}

func (s source) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	var results []driver.RenewResult
	err := s.faults.call(ctx, func() error {
		results = s.Source.Renew(ctx, d)
		return nil
	})
	if err == nil {
		return results
	}
	results = make([]driver.RenewResult, len(d))
	for i := range results {
		results[i].Err = err
	}
	return results
}

type queue struct {
	driver.Queue
	faults *Faults
}

func (q queue) source() source { return source{q.Queue, q.faults} }

func (q queue) Receive(ctx context.Context, limit int, wait time.Duration) ([]*driver.Delivery, error) {
	return q.source().Receive(ctx, limit, wait)
}

func (q queue) Settle(ctx context.Context, all []driver.Settlement) []error {
	return q.source().Settle(ctx, all)
}

func (q queue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return q.source().Renew(ctx, d)
}

func (q queue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	var results []driver.SendResult
	err := q.faults.call(ctx, func() error {
		results = q.Queue.Send(ctx, m)
		return nil
	})
	if err == nil {
		return results
	}
	results = make([]driver.SendResult, len(m))
	for i := range results {
		results[i].Err = err
	}
	return results
}

func (q queue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	var s driver.Session
	err := q.faults.call(ctx, func() (err error) {
		s, err = q.Queue.AcceptSession(ctx, id, wait)
		return err
	})
	if err != nil {
		return nil, err // a session that was had is locked until its lock runs out
	}
	return session{s, q.faults}, nil
}

type session struct {
	driver.Session
	faults *Faults
}

// Unnamed implements driver.UnnamedSession.
func (s session) Unnamed() bool {
	u, ok := s.Session.(driver.UnnamedSession)
	return ok && u.Unnamed()
}

func (s session) source() source { return source{s.Session, s.faults} }

func (s session) Receive(ctx context.Context, limit int, wait time.Duration) ([]*driver.Delivery, error) {
	return s.source().Receive(ctx, limit, wait)
}

func (s session) Settle(ctx context.Context, all []driver.Settlement) []error {
	return s.source().Settle(ctx, all)
}

func (s session) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return s.source().Renew(ctx, d)
}

func (s session) RenewSession(ctx context.Context) (time.Time, error) {
	var until time.Time
	err := s.faults.call(ctx, func() (err error) {
		until, err = s.Session.RenewSession(ctx)
		return err
	})
	return until, err
}
