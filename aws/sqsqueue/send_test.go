package sqsqueue

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/queue-runtime/queue/driver"
)

// A request holds what the limit allows, by what the messages are on the wire, on
// the way into the queue and on the way to the dead letters.
func TestBatchesBySize(t *testing.T) {
	for _, c := range []struct{ limit, perRequest int }{{0, 7}, {400 << 10, 2}} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeSQS()
			f.create("d", nil)
			f.create("q", fakeRedrive("d", 100))
			q := open(t, connect(t, f, &Options{MaxBatchBytes: c.limit}), "q", nil)
			const n = 14
			m := make([]*driver.Message, n)
			for i := range m {
				// 146,400 bytes of text each.
				m[i] = &driver.Message{ID: fmt.Sprint(i), Body: make([]byte, 109_800), Sealed: true}
			}
			for i, r := range q.Send(t.Context(), m) {
				if r.Err != nil {
					t.Fatalf("message %d: %v", i, r.Err)
				}
			}
			if got := f.count("SendMessageBatch"); got != n/c.perRequest {
				t.Errorf("limit %d: %d requests to send %d messages, want %d", c.limit, got, n, n/c.perRequest)
			}
			var d []*driver.Delivery
			for len(d) < n {
				d = append(d, receive(t, q, 10, time.Second)...)
			}
			settle(t, q, driver.MoveToDeadLetter, d...)
			if got := f.count("SendMessageBatch"); got != 2*n/c.perRequest {
				t.Errorf("limit %d: %d requests to dead-letter them, want %d", c.limit, got-n/c.perRequest, n/c.perRequest)
			}
			if len(f.depth("d")) != n || len(f.depth("q")) != 0 {
				t.Errorf("limit %d: %d dead letters, %d left", c.limit, len(f.depth("d")), len(f.depth("q")))
			}
		})
	}
}

// A message that is sent again, by a caller who saw no answer, is dropped within
// SQS's five minutes: its own ID stands for it where no DedupID is given, and its
// body does not matter.
func TestDedupIsStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		q := fifo(t, f, 1, nil)[0]
		for i, m := range []*driver.Message{
			{ID: "1", SessionID: "a", Body: []byte("x")},
			{ID: "1", SessionID: "a", Body: []byte("sealed anew")},
			{ID: "2", SessionID: "a", Body: []byte("y"), DedupID: "order 7"},
			{ID: "3", SessionID: "a", Body: []byte("y"), DedupID: "order 7"},
			{ID: "4", SessionID: "a", Body: []byte("x")},
		} {
			if r := q.Send(t.Context(), []*driver.Message{m}); r[0].Err != nil {
				t.Fatalf("%d: %v", i, r[0].Err)
			}
			time.Sleep(time.Minute)
		}
		if got := f.depth("q.fifo"); fmt.Sprint(got) != "[x y x]" {
			t.Errorf("stored %v", got)
		}
	})
}

// forgetful answers batches without a word on their second entry.
type forgetful struct{ api }

func (f forgetful) SendMessageBatch(ctx context.Context, in *sqs.SendMessageBatchInput, o ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	out, err := f.api.SendMessageBatch(ctx, in, o...)
	if err == nil {
		out.Successful = append(out.Successful[:1], out.Successful[2:]...)
	}
	return out, err
}

func (f forgetful) DeleteMessageBatch(ctx context.Context, in *sqs.DeleteMessageBatchInput, o ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error) {
	out, err := f.api.DeleteMessageBatch(ctx, in, o...)
	if err == nil {
		out.Successful = append(out.Successful[:1], out.Successful[2:]...)
	}
	return out, err
}

func (f forgetful) ChangeMessageVisibilityBatch(ctx context.Context, in *sqs.ChangeMessageVisibilityBatchInput, o ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
	out, err := f.api.ChangeMessageVisibilityBatch(ctx, in, o...)
	if err == nil {
		out.Successful = append(out.Successful[:1], out.Successful[2:]...)
	}
	return out, err
}

// An entry that the answer does not mention counts as failed.
func TestUnmentionedEntriesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		p := connect(t, f, nil)
		q := open(t, p, "q", nil)
		var m []*driver.Message
		for _, id := range []string{"1", "2", "3"} {
			m = append(m, &driver.Message{ID: id, Body: []byte(id)})
		}
		check := func(what string, errs []error) {
			t.Helper()
			if errs[0] != nil || driver.KindOf(errs[1]) != driver.Unavailable || errs[2] != nil {
				t.Errorf("%s: %v", what, errs)
			}
		}
		p.api = forgetful{f}
		var errs []error
		for _, r := range q.Send(t.Context(), m) {
			errs = append(errs, r.Err)
		}
		check("send", errs)
		d := receiveBodies(t, q, 3, 0, "1", "2", "3")
		check("renew", renewErrors(q, d))
		check("complete", settleErrors(q, driver.Complete, d...))
		p.api = f
	})
}
