package deadletter_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
)

// remote has dead-letter queues like those of SQS: they cannot be peeked, and a call takes
// its time.
type remote struct {
	driver.Broker
	took     time.Duration // of a call that receives
	noRenew  bool          // locks run out
	peeks    bool
	invents  func(n int) *driver.Delivery // the n-th letter of a broker that has no end of them
	received int                          // calls
	noStats  bool                         // nothing is counted
	twice    int                          // the call whose letters the next one brings once more; 0: none
	last     []*driver.Delivery
}

func (p *remote) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return &remoteMain{q, p}, err
}

type remoteMain struct {
	driver.Queue
	p *remote
}

func (q *remoteMain) DeadLetters(ctx context.Context) (driver.Queue, error) {
	d, err := q.Queue.DeadLetters(ctx)
	return &remoteDead{d, q.p}, err
}

type remoteDead struct {
	driver.Queue
	p *remote
}

func (q *remoteDead) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if !q.p.peeks {
		c.Peek = driver.None
	}
	return c
}

func (q *remoteDead) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	q.p.received++
	if q.p.took > 0 {
		time.Sleep(q.p.took) // of the bubble
	}
	if q.p.invents != nil {
		return []*driver.Delivery{q.p.invents(q.p.received)}, nil
	}
	if q.p.twice > 0 && q.p.received == q.p.twice+1 {
		return q.p.last, nil
	}
	d, err := q.Queue.Receive(ctx, max, wait)
	q.p.last = d
	return d, err
}

func (q *remoteDead) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	if !q.p.peeks {
		return nil, "", driver.Unsupported("peek")
	}
	return q.Queue.Peek(ctx, cursor, max)
}

func (q *remoteDead) Stats(ctx context.Context) (driver.Stats, error) {
	if q.p.noStats {
		return driver.Stats{}, driver.Unsupported("stats")
	}
	return q.Queue.Stats(ctx)
}

func (q *remoteDead) Settle(ctx context.Context, s []driver.Settlement) []error {
	if q.p.invents != nil {
		return make([]error, len(s))
	}
	return q.Queue.Settle(ctx, s)
}

func (q *remoteDead) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	if !q.p.noRenew {
		return q.Queue.Renew(ctx, d)
	}
	results := make([]driver.RenewResult, len(d))
	for i := range results {
		results[i].Err = driver.Errorf(driver.LockLost, "the lock is over")
	}
	return results
}

// letters opens the dead-letter queue behind p.
func (x *fixture) letters(p *remote) *deadletter.Queue {
	x.Helper()
	p.Broker = x.Broker.Connect()
	c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet()})
	x.Must(err)
	x.Cleanup(func() { _ = c.Close(context.Background()) })
	d, err := deadletter.Open(x.Context(), c, orders, &deadletter.Options{Wait: time.Second})
	x.Must(err)
	return d
}

// buryMany puts n letters there, the last five with the reason wanted.
func (x *fixture) buryMany(n int) {
	x.Helper()
	r := x.Receiver(orders, nil)
	s := x.Sender(orders)
	for i := range n {
		_, err := s.Send(x.Context(), &queue.Message{ID: fmt.Sprint("m", i), Body: []byte("x")})
		x.Must(err)
		code := "gave_up"
		if i >= n-5 {
			code = "wanted"
		}
		x.Must(x.One(r).DeadLetter(x.Context(), queue.Reason{Code: code}))
	}
}

// A read that takes longer than the lock of its first letters reaches the last ones.
func TestReadOutlastsTheLock(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(600) // 60 calls of 1 s, and a lock of 30 s
		d := x.letters(&remote{took: time.Second})
		f := &deadletter.Filter{Reasons: []string{"wanted"}}
		s, err := d.Stats(x.Context(), f)
		if err != nil || s.Count != 5 {
			x.Errorf("Stats: %d, %v; want 5", s.Count, err)
		}
		report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{Filter: &deadletter.Filter{Reasons: f.Reasons, Limit: 2}})
		if err != nil || report.Redriven != 2 {
			x.Errorf("Redrive: %+v, %v; want 2", report, err)
		}
		n, err := d.Purge(x.Context(), f)
		if err != nil || n != 3 {
			x.Errorf("Purge = %d, %v; want 3", n, err)
		}
	})
}

// If it cannot reach the last ones, it says so.
func TestReadThatEndsEarlyIsAnError(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(600)
		d := x.letters(&remote{took: time.Second, noRenew: true})
		f := &deadletter.Filter{Reasons: []string{"wanted"}}
		n, err := d.Purge(x.Context(), f)
		var left *deadletter.IncompleteError
		if n != 0 || !errors.As(err, &left) || !errors.Is(err, deadletter.ErrIncomplete) || left.Left <= 5 || left.Left+int64(left.Reached) != 600 {
			x.Errorf("Purge = %d, %v; want an IncompleteError for the rest of 600", n, err)
		}
		if _, err = d.Stats(x.Context(), f); !errors.Is(err, deadletter.ErrIncomplete) {
			x.Errorf("Stats: %v; want ErrIncomplete", err)
		}
		if report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{Filter: f}); !errors.Is(err, deadletter.ErrIncomplete) {
			x.Errorf("Redrive: %+v, %v; want ErrIncomplete", report, err)
		}
	})
}

// What other receivers hold is reported, and what they took away is not.
func TestLettersThatOthersHold(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(10)
		main, err := x.Broker.Connect().Open(x.Context(), orders, nil)
		x.Must(err)
		other, err := main.DeadLetters(x.Context())
		x.Must(err)
		taken, err := other.Receive(x.Context(), 4, 0)
		x.Must(err)
		if err := other.Settle(x.Context(), []driver.Settlement{{Delivery: taken[0], Kind: driver.Complete}})[0]; err != nil {
			x.Fatal(err)
		}
		d := x.letters(&remote{})
		report, err := d.Redrive(x.Context(), nil)
		var left *deadletter.IncompleteError
		if !errors.As(err, &left) || left.Left != 3 || report.Redriven != 6 {
			x.Errorf("Redrive: %+v, %v; want 6, and 3 left", report, err)
		}
		n, err := d.Purge(x.Context(), &deadletter.Filter{})
		if n != 0 || !errors.As(err, &left) || left.Left != 3 {
			x.Errorf("Purge = %d, %v; want 0, and 3 left", n, err)
		}
	})
}

// Letters that can be neither counted nor peeked at are read until no more come.
func TestLettersThatNothingCounts(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(20)
		if n, err := x.letters(&remote{noStats: true}).Purge(x.Context(), &deadletter.Filter{}); n != 20 || err != nil {
			x.Errorf("Purge = %d, %v; want all 20", n, err)
		}
	})
}

// Letters that come once more, as a broker that has lost an answer gives them, do not end a read.
func TestLettersThatComeTwice(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(40)
		n, err := x.letters(&remote{twice: 1}).Purge(x.Context(), &deadletter.Filter{Reasons: []string{"wanted"}})
		if n != 5 || err != nil {
			x.Errorf("Purge = %d, %v; want the 5 that are wanted, at the end of 40", n, err)
		}
	})
}

// A broker that invents letters does not keep a call busy for ever.
func TestLettersWithoutEnd(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(10)
		invent := func(at func() time.Time) func(int) *driver.Delivery {
			return func(n int) *driver.Delivery {
				return &driver.Delivery{BrokerID: fmt.Sprint("invented", n), Message: driver.Message{ID: "i"}, DeadLetter: &driver.DeadLetter{Reason: "x", At: at()}}
			}
		}
		past := invent(func() time.Time { return time.Unix(0, 0) })
		report, err := x.letters(&remote{invents: past}).Redrive(x.Context(), nil)
		if err != nil || report.Redriven != 10 {
			x.Errorf("Redrive: %+v, %v; want the 10 of the beginning", report, err)
		}
		if n, err := x.letters(&remote{invents: past}).Purge(x.Context(), &deadletter.Filter{}); err != nil || n != 10 {
			x.Errorf("Purge = %d, %v; want the 10 of the beginning", n, err)
		}
		future := invent(func() time.Time { return time.Now().Add(time.Hour) })
		if n, err := x.letters(&remote{invents: future}).Purge(x.Context(), &deadletter.Filter{}); n != 0 || !errors.Is(err, deadletter.ErrIncomplete) {
			x.Errorf("Purge = %d, %v; want ErrIncomplete", n, err)
		}
	})
}

// A dry run that can peek holds nothing that a redrive beside it would miss.
func TestDryRunHoldsNothing(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(12)
		p := &remote{peeks: true}
		told := 0
		report, err := x.letters(p).Redrive(x.Context(), &deadletter.RedriveOptions{
			DryRun: true, Filter: &deadletter.Filter{Limit: 11}, Progress: func(r deadletter.RedriveReport) { told = r.Matched },
		})
		if err != nil || report.Matched != 11 || report.Redriven != 11 || told != 11 || p.received != 0 {
			x.Errorf("%+v, %v; told of %d, %d calls received; want 11 and none", report, err, told, p.received)
		}
	})
}
