package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/queue-runtime/queue/driver"
)

// A lock is judged by the clock here: SQS would let a stale handle delete a
// message that another receiver holds.
func TestSettleAfterLock(t *testing.T) {
	for _, kind := range []driver.SettleKind{driver.Complete, driver.Abandon, driver.MoveToDeadLetter} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeSQS()
			f.create("d", nil)
			f.create("q", fakeRedrive("d", 100))
			a, b := open(t, connect(t, f, nil), "q", nil), open(t, connect(t, f, nil), "q", nil)
			send(t, a, "m")
			stale := receiveBodies(t, a, 1, 0, "m")
			time.Sleep(30 * time.Second)
			fresh := receiveBodies(t, b, 1, 20*time.Second, "m")
			wantError(t, settleErrors(a, kind, stale...)[0], driver.ErrLockLost)
			wantError(t, a.Renew(t.Context(), stale)[0].Err, driver.ErrLockLost)
			if d := receive(t, a, 1, 0); d != nil {
				t.Fatalf("got %q while the other holds it", d[0].Body)
			}
			settle(t, b, driver.Complete, fresh...)
			if n := len(f.depth("q")) + len(f.depth("d")); n != 0 {
				t.Errorf("%d messages left", n)
			}
		})
	}
}

func TestSettleTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", nil)
		send(t, q, "m")
		d := receiveBodies(t, q, 1, 0, "m")
		errs := settleErrors(q, driver.Complete, d[0], d[0])
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		wantError(t, errs[1], driver.ErrSettled)
		wantError(t, settleErrors(q, driver.Abandon, d[0])[0], driver.ErrSettled)
		wantError(t, q.Renew(t.Context(), d)[0].Err, driver.ErrSettled)
		other := open(t, connect(t, f, nil), "q", nil)
		if err := settleErrors(other, driver.Complete, d[0])[0]; err == nil {
			t.Error("a queue settled another's delivery")
		}
	})
}

// SQS holds a message for 12 hours and no longer, however often it is renewed.
func TestRenewEndsAfterTwelveHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", &driver.QueueOptions{Lock: time.Hour})
		send(t, q, "m")
		d := receiveBodies(t, q, 1, 0, "m")
		begin := time.Now()
		for i := range 24 {
			r := q.Renew(t.Context(), d)[0]
			if r.Err != nil {
				t.Fatalf("renewal %d: %v", i, r.Err)
			}
			if held := r.LockedUntil.Sub(begin); held > 12*time.Hour {
				t.Fatalf("renewal %d holds for %s", i, held)
			}
			time.Sleep(30 * time.Minute)
		}
		wantError(t, q.Renew(t.Context(), d)[0].Err, driver.ErrLockLost)
		settle(t, q, driver.Complete, receiveBodies(t, q, 1, 20*time.Second, "m")...)
	})
}

func TestAbandonDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", nil)
		send(t, q, "m")
		d := receiveBodies(t, q, 1, 0, "m")
		for _, c := range []struct {
			s    driver.Settlement
			want error
		}{
			{driver.Settlement{Delivery: d[0], Kind: driver.Abandon, Delay: -time.Second}, driver.ErrInvalid},
			{driver.Settlement{Delivery: d[0], Kind: driver.Abandon, Delay: 13 * time.Hour}, errors.ErrUnsupported},
			{driver.Settlement{Delivery: d[0]}, driver.ErrInvalid},
			{driver.Settlement{Kind: driver.Complete}, driver.ErrInvalid},
		} {
			wantError(t, q.Settle(t.Context(), []driver.Settlement{c.s})[0], c.want)
		}
		begin := time.Now()
		errs := q.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.Abandon, Delay: 90*time.Second + time.Millisecond}})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		d = receiveBodies(t, q, 1, 5*time.Minute, "m")
		if took := time.Since(begin); took < 90*time.Second+time.Millisecond || took > 92*time.Second {
			t.Errorf("came again after %s", took)
		}
		// Close to the 12 hours a delay is cut to what SQS allows.
		r := q.Renew(t.Context(), d)[0]
		for ; r.Err == nil && time.Since(begin) < 11*time.Hour; r = q.Renew(t.Context(), d)[0] {
			time.Sleep(25 * time.Second)
		}
		if r.Err != nil {
			t.Fatalf("renew after %s: %v", time.Since(begin), r.Err)
		}
		errs = q.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.Abandon, Delay: 12 * time.Hour}})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		settle(t, q, driver.Complete, receiveBodies(t, q, 1, 2*time.Hour, "m")...)
	})
}

// Each entry of a batch succeeds or fails on its own, in all four requests.
func TestBatchEntriesFailAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("d", nil)
		f.create("q", fakeRedrive("d", 100))
		q := open(t, connect(t, f, nil), "q", nil)
		var m []*driver.Message
		for i := range 23 {
			m = append(m, &driver.Message{ID: fmt.Sprint(i), Body: fmt.Appendf(nil, "%02d", i)})
		}
		only := func(action, body, code string) {
			f.refuse = func(a, b string) string {
				if a == action && b == body {
					return code
				}
				return ""
			}
		}
		check := func(errs []error, at int, target error) {
			t.Helper()
			for i, err := range errs {
				if i == at {
					wantError(t, err, target)
				} else if err != nil {
					t.Fatalf("entry %d: %v", i, err)
				}
			}
		}
		only("SendMessageBatch", "13", "ThrottlingException")
		var errs []error
		for _, r := range q.Send(t.Context(), m) {
			errs = append(errs, r.Err)
		}
		check(errs, 13, driver.ErrThrottled)
		f.refuse = nil
		if r := q.Send(t.Context(), m[13:14]); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
		var d []*driver.Delivery
		for len(d) < 23 {
			d = append(d, receive(t, q, 23, time.Second)...)
		}
		only("ChangeMessageVisibilityBatch", string(d[7].Body), "RequestThrottled")
		check(renewErrors(q, d), 7, driver.ErrThrottled)
		only("DeleteMessageBatch", string(d[17].Body), "InternalError")
		check(settleErrors(q, driver.Complete, d...), 17, driver.ErrUnavailable)
		if left := f.depth("q"); len(left) != 1 || left[0] != string(d[17].Body) {
			t.Fatalf("left: %v", left)
		}
		only("ChangeMessageVisibilityBatch", string(d[17].Body), "ReceiptHandleIsInvalid")
		check(settleErrors(q, driver.Abandon, d[17]), 0, driver.ErrLockLost)
	})
}

// Full batches cost a tenth of a request per message.
func TestRequestsPerMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", nil)
		const n = 200
		var m []*driver.Message
		for i := range n {
			m = append(m, &driver.Message{ID: fmt.Sprint(i), Body: make([]byte, 16<<10), Sealed: true})
		}
		for _, r := range q.Send(t.Context(), m) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		var d []*driver.Delivery
		for len(d) < n {
			d = append(d, receive(t, q, 10, time.Second)...)
		}
		settle(t, q, driver.Complete, d...)
		for _, action := range []string{"SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch"} {
			if c := f.count(action); c != n/10 {
				t.Errorf("%s: %d requests for %d messages", action, c, n)
			}
		}
	})
}

// Renewals, abandons and dead letters go ten to a request; completions of ten
// handlers share one, too.
func TestSettlingIsBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("d", nil)
		f.create("q", fakeRedrive("d", 100))
		q := open(t, connect(t, f, nil), "q", nil)
		const n = 20
		var m []*driver.Message
		for i := range n {
			m = append(m, &driver.Message{ID: fmt.Sprint(i), Body: []byte("m")})
		}
		q.Send(t.Context(), m)
		take := func() (d []*driver.Delivery) {
			for len(d) < n {
				d = append(d, receive(t, q, n, time.Second)...)
			}
			return d
		}
		costs := func(what, action string, want int, f0 func()) {
			t.Helper()
			before := f.count(action)
			f0()
			if got := f.count(action) - before; got != want {
				t.Errorf("%s: %d requests for %d messages, want %d", what, got, n, want)
			}
		}
		d := take()
		costs("renew", "ChangeMessageVisibilityBatch", n/10, func() { _ = q.Renew(t.Context(), d) })
		costs("abandon", "ChangeMessageVisibilityBatch", n/10, func() { settle(t, q, driver.Abandon, d...) })
		d = take()
		costs("complete", "DeleteMessageBatch", 1, func() {
			var handlers sync.WaitGroup
			for _, d := range d[:10] {
				handlers.Go(func() { settle(t, q, driver.Complete, d) })
			}
			handlers.Wait()
		})
		costs("dead-letter", "SendMessageBatch", 1, func() { settle(t, q, driver.MoveToDeadLetter, d[10:]...) })
	})
}

// visibilities notes the handles whose visibility is changed, in order.
type visibilities struct {
	api
	handles *[]string
}

func (v visibilities) ChangeMessageVisibilityBatch(ctx context.Context, in *sqs.ChangeMessageVisibilityBatchInput, o ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
	for _, e := range in.Entries {
		*v.handles = append(*v.handles, *e.ReceiptHandle)
	}
	return v.api.ChangeMessageVisibilityBatch(ctx, in, o...)
}

// An abandoned message is given back after everything behind it, the last first:
// whichever call fails, no receiver gets a later message of the group before it.
func TestTailGoesBackLastFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		var handles []string
		p := connect(t, f, nil)
		p.api = visibilities{f, &handles}
		f.create("q.fifo", nil)
		q := open(t, p, "q", nil)
		send(t, q, "a1", "a2", "a3")
		d := receiveBodies(t, q, 10, time.Second, "a1")
		var given []string
		for _, m := range f.queues["q.fifo"].messages {
			given = append([]string{m.handles[0]}, given...)
		}
		settle(t, q, driver.Abandon, d...)
		if fmt.Sprint(handles) != fmt.Sprint(given) {
			t.Errorf("given back in the order %v, want %v", handles, given)
		}
	})
}

// What a holder forgets to settle is not kept for ever.
func TestForgottenDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", nil).(*queue)
		for range 5 {
			send(t, q, "m")
			receiveBodies(t, q, 1, time.Second, "m")
			f.mu.Lock()
			f.queues["q"].messages = nil
			f.mu.Unlock()
			time.Sleep(time.Minute)
		}
		receiveBodies(t, q, 1, 0)
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.groups) != 0 || q.dispatcher.out != 0 {
			t.Errorf("%d groups are kept, %d messages count as handed out", len(q.groups), q.dispatcher.out)
		}
	})
}

// late is a connection on which renewals take their time to arrive.
type late struct{ api }

func (l late) ChangeMessageVisibilityBatch(ctx context.Context, in *sqs.ChangeMessageVisibilityBatchInput, o ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
	if in.Entries[0].VisibilityTimeout > 60 {
		time.Sleep(2 * time.Second)
	}
	return l.api.ChangeMessageVisibilityBatch(ctx, in, o...)
}

// A delay that is asked for while a renewal of the message is under way is not
// replaced by it: the message would be away for a whole lock.
func TestRenewalDoesNotUndoDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		p := connect(t, f, nil)
		p.api = late{f}
		q := open(t, p, "q", &driver.QueueOptions{Lock: time.Hour})
		send(t, q, "m")
		d := receiveBodies(t, q, 1, 0, "m")
		renewed := make(chan error, 1)
		go func() {
			renewed <- q.Renew(t.Context(), d)[0].Err
		}()
		synctest.Wait()
		begin := time.Now()
		errs := q.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.Abandon, Delay: 5 * time.Second}})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		if err := <-renewed; err != nil {
			t.Errorf("renew: %v", err)
		}
		wantError(t, q.Renew(t.Context(), d)[0].Err, driver.ErrSettled)
		d = receiveBodies(t, q, 1, 2*time.Hour, "m")
		if took := time.Since(begin); took < 5*time.Second || took > 8*time.Second {
			t.Errorf("came again after %s", took)
		}
		settle(t, q, driver.Complete, d...)
	})
}

// slowDeletion answers deletions late, once with an error.
type slowDeletion struct {
	api
	fails bool
}

func (s *slowDeletion) DeleteMessageBatch(ctx context.Context, in *sqs.DeleteMessageBatchInput, o ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error) {
	time.Sleep(5 * time.Second)
	if s.fails {
		s.fails = false
		return nil, errors.New("connection reset")
	}
	return s.api.DeleteMessageBatch(ctx, in, o...)
}

// A deletion whose caller left is not told as done before SQS has answered: it may fail, and
// then the message can be settled again.
func TestDeletionThatOutlastsItsCaller(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeSQS()
			f.create("q", nil)
			p := connect(t, f, nil)
			p.api = &slowDeletion{f, fails}
			q := open(t, p, "q", nil)
			send(t, q, "m")
			d := receiveBodies(t, q, 1, 0, "m")
			complete := []driver.Settlement{{Delivery: d[0], Kind: driver.Complete}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			wantError(t, q.Settle(ctx, complete)[0], context.DeadlineExceeded)
			if err := q.Settle(t.Context(), complete)[0]; driver.KindOf(err) != driver.Unavailable {
				t.Errorf("while the deletion is under way: %v, want Unavailable", err)
			}
			time.Sleep(5 * time.Second)
			switch err := q.Settle(t.Context(), complete)[0]; {
			case fails && err != nil:
				t.Errorf("after a deletion that failed: %v", err)
			case !fails:
				wantError(t, err, driver.ErrSettled)
			}
			if left := f.depth("q"); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
		})
	}
}
