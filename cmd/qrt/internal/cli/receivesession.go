package cli

import (
	"context"
	"errors"
	"time"

	queue "github.com/queue-runtime/queue"
)

// sessions takes messages from one session, or from one after the other.
func (r *receiving) sessions(ctx context.Context, rx *queue.Receiver) error {
	// One that --follow has no name of is left when it is idle, for the others.
	untilIdle := !r.o.follow || r.o.session == ""
	for !r.done() {
		var s *queue.Session
		var err error
		if r.o.session != "" {
			s, err = rx.AcceptSession(ctx, r.o.session)
		} else {
			s, err = rx.NextSession(ctx)
		}
		if errors.Is(err, queue.ErrNoSession) {
			if r.o.follow {
				continue
			}
			return nil
		}
		if err == nil {
			err = r.session(ctx, s, untilIdle)
		}
		if err != nil {
			if r.goesOn(ctx, err) {
				continue
			}
			return err
		}
		if r.o.session != "" || r.o.nextSession && !r.o.follow && !r.o.all {
			return nil
		}
	}
	return nil
}

// session takes messages from s, whose lock it keeps, and releases it.
func (r *receiving) session(ctx context.Context, s *queue.Session, untilIdle bool) error {
	keeping, stop := context.WithCancel(s.Context())
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		keepSession(keeping, s)
	}()
	err := r.run(ctx, s, untilIdle)
	stop()
	<-kept
	return errors.Join(err, r.giveBack(ctx), s.Close(context.WithoutCancel(ctx)))
}

// renewable is a lock that ends unless it is renewed: that of a session.
type renewable interface {
	LockedUntil() time.Time
	Renew(ctx context.Context) error
}

// minRenewal keeps the attempts to renew apart when the lock is about to end.
const minRenewal = 100 * time.Millisecond

// keepSession renews the lock after each half of what is left of it, until ctx ends. A
// renewal that fails is tried again while the lock lasts; that it is lost the session says.
func keepSession(ctx context.Context, s renewable) {
	for ctx.Err() == nil {
		until := s.LockedUntil()
		if until.IsZero() {
			return // it has no end
		}
		timer := time.NewTimer(max(time.Until(until)/2, minRenewal))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		_ = s.Renew(ctx)
	}
}
