package sqsqueue

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/awspeer"
)

// A cancelled Receive leaves its long poll to end by itself; what that brings is
// given back, not left to run out its lock of 30 seconds.
func TestCancelledPollGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		a, b := open(t, connect(t, f, nil), "q", nil), open(t, connect(t, f, nil), "q", nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if d, err := a.Receive(ctx, 5, 20*time.Second); err != context.Canceled || d != nil {
			t.Fatalf("got %v, %v", d, err)
		}
		time.Sleep(time.Second)
		send(t, b, "m") // goes to the poll that was left
		synctest.Wait()
		begin := time.Now()
		d := receiveBodies(t, b, 1, 20*time.Second, "m")
		if after := time.Since(begin); after > surplusGrace {
			t.Errorf("came back after %s", after)
		}
		settle(t, b, driver.Complete, d...)
	})
}

// The next Receive takes such a poll over, so that its message is delivered at
// once, for the first time, and no second poll runs beside it.
func TestCancelledPollIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", nil)
		for range 5 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			if _, err := q.Receive(ctx, 5, 20*time.Second); err != context.Canceled {
				t.Fatal(err)
			}
		}
		go func() {
			time.Sleep(time.Second)
			send(t, q, "m")
		}()
		d := receiveBodies(t, q, 5, 10*time.Second, "m")
		if d[0].Count != 1 {
			t.Errorf("delivered %d times", d[0].Count)
		}
		if n := f.count("ReceiveMessage"); n != 1 {
			t.Errorf("%d polls, want 1", n)
		}
		settle(t, q, driver.Complete, d...)
	})
}

// A poll for a call whose context has a deadline ends with it, also beside a call that waits
// for longer: it takes no message without a caller here that waits for it.
func TestPollEndsAtTheDeadlineOfItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		a, b := open(t, connect(t, f, nil), "q", nil), open(t, connect(t, f, nil), "q", nil)
		got := make(chan []*driver.Delivery)
		go func() { got <- receive(t, a, 1, 20*time.Second) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if d, err := a.Receive(ctx, 10, 20*time.Second); err != context.DeadlineExceeded || d != nil {
			t.Fatalf("got %v, %v", d, err)
		}
		time.Sleep(time.Second)
		for _, body := range []string{"first", "second", "third"} {
			send(t, b, body)
		}
		settle(t, a, driver.Complete, <-got...)
		synctest.Wait()
		d := receive(t, b, 10, 0)
		if len(d) != 2 || d[0].Count != 1 || d[1].Count != 1 {
			t.Errorf("another process gets %v, want two messages at their first delivery", d)
		}
		settle(t, b, driver.Complete, d...)
	})
}

func TestReceiveWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, &Options{Poll: 2 * time.Second}), "q", nil)
		for _, wait := range []time.Duration{0, 300 * time.Millisecond, time.Second, 45 * time.Second} {
			begin := time.Now()
			if d := receive(t, q, 1, wait); d != nil {
				t.Fatalf("got %v", d)
			}
			if took := time.Since(begin); took != wait {
				t.Errorf("waited %s, want %s", took, wait)
			}
		}
	})
}

// A queue with a receive wait of its own applies it where the request says 0,
// because the SDK leaves a zero out.
func TestShortPollOfWaitingQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", map[string]string{"ReceiveMessageWaitTimeSeconds": "20"})
		q := open(t, connect(t, f, nil), "q", nil)
		begin := time.Now()
		if d := receive(t, q, 1, 0); d != nil {
			t.Fatalf("got %v", d)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("a short poll took %s", took)
		}
	})
}

// Waiting receivers share polls: no more messages are asked for than they want.
func TestPollsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", nil)
		got := make(chan string, 8)
		for range 8 {
			go func() {
				d := receive(t, q, 1, 20*time.Second)
				settle(t, q, driver.Complete, d...)
				got <- string(d[0].Body)
			}()
		}
		synctest.Wait()
		if n := f.count("ReceiveMessage"); n > 8 {
			t.Errorf("%d polls for 8 who want one message each", n)
		}
		for i := range 8 {
			send(t, q, fmt.Sprint(i))
		}
		seen := make(map[string]bool)
		for range 8 {
			seen[<-got] = true
		}
		if len(seen) != 8 {
			t.Errorf("got %v", seen)
		}
	})
}

// Close gives back what is held, and ends the use of it.
func TestCloseReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		a, b := open(t, connect(t, f, nil), "q", nil), open(t, connect(t, f, nil), "q", nil)
		send(t, a, "1", "2")
		held := receiveBodies(t, a, 2, 0, "1", "2")
		if err := a.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		settle(t, b, driver.Complete, receiveBodies(t, b, 2, 0, "1", "2")...)
		for _, err := range settleErrors(a, driver.Complete, held...) {
			wantError(t, err, driver.ErrClosed)
		}
		wantError(t, a.Renew(t.Context(), held)[0].Err, driver.ErrClosed)
		_, err := a.Receive(t.Context(), 1, 0)
		wantError(t, err, driver.ErrClosed)
		wantError(t, a.Send(t.Context(), []*driver.Message{{ID: "x"}})[0].Err, driver.ErrClosed)
		if err := a.Close(t.Context()); err != nil {
			t.Errorf("second close: %v", err)
		}
	})
}

// Close fails waiting receivers at once. Then it waits for the poll under way and
// gives back what that brings.
func TestCloseWaitsForPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		a, b := open(t, connect(t, f, nil), "q", nil), open(t, connect(t, f, nil), "q", nil)
		failed := make(chan error)
		go func() {
			_, err := a.Receive(context.Background(), 1, 20*time.Second)
			failed <- err
		}()
		synctest.Wait()
		begin := time.Now()
		closed := make(chan error)
		go func() { closed <- a.Close(context.Background()) }()
		wantError(t, <-failed, driver.ErrClosed)
		time.Sleep(5 * time.Second)
		send(t, b, "m")
		if err := <-closed; err != nil {
			t.Errorf("close: %v", err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("close took %s with a message coming after 5 s", took)
		}
		settle(t, b, driver.Complete, receiveBodies(t, b, 1, 0, "m")...)
	})
}

// A Close whose context ends cuts polls off.
func TestCloseHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", nil)
		go func() { _, _ = q.Receive(context.Background(), 1, 20*time.Second) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		wantError(t, q.Close(ctx), context.DeadlineExceeded)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// An error of a poll reaches every waiting call, once each.
func TestPollFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", nil)
		f.fail = func(action string) error {
			return &apiError{code: "RequestThrottled"}
		}
		for range 2 {
			_, err := q.Receive(t.Context(), 1, 20*time.Second)
			wantError(t, err, driver.ErrThrottled)
		}
		f.fail = nil
		send(t, q, "m")
		settle(t, q, driver.Complete, receiveBodies(t, q, 1, time.Second, "m")...)
	})
}

// silent is a connection on which, while it is mute, no poll is answered.
type silent struct {
	api
	mute *atomic.Bool
}

func (s silent) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, o ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	if s.mute.Load() {
		<-ctx.Done()
		return nil, fmt.Errorf("operation error SQS: ReceiveMessage, %w", ctx.Err())
	}
	return s.api.ReceiveMessage(ctx, in, o...)
}

// A poll that is never answered ends, as an error that passes, and another takes
// its place.
func TestPollWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		p := connect(t, f, nil)
		var mute atomic.Bool
		p.api = silent{p.api, &mute}
		q := open(t, p, "q", nil)
		mute.Store(true)
		begin := time.Now()
		_, err := q.Receive(t.Context(), 1, time.Hour)
		wantError(t, err, driver.ErrUnavailable)
		if took := time.Since(begin); took != MaxPoll+pollGrace {
			t.Errorf("the poll ended after %s", took)
		}
		mute.Store(false)
		send(t, q, "m")
		settle(t, q, driver.Complete, receiveBodies(t, q, 1, time.Second, "m")...)
	})
}

// polling notes what is asked, and may answer at once with nothing.
type polling struct {
	api
	empty bool
	mu    *sync.Mutex // guards asked
	asked *[]*sqs.ReceiveMessageInput
}

func (p polling) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, o ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	p.mu.Lock()
	*p.asked = append(*p.asked, in)
	n := len(*p.asked)
	p.mu.Unlock()
	if p.empty && n < 1000 {
		return &sqs.ReceiveMessageOutput{}, nil
	}
	return p.api.ReceiveMessage(ctx, in, o...)
}

// Something in between that does not wait is not asked in a loop.
func TestPollsThatDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		p := connect(t, f, nil)
		var asked []*sqs.ReceiveMessageInput
		var mu sync.Mutex
		p.api = polling{f, true, &mu, &asked}
		q := open(t, p, "q", nil)
		if d := receive(t, q, 1, time.Second); d != nil {
			t.Fatalf("got %v", d)
		}
		mu.Lock()
		defer mu.Unlock()
		if n := len(asked); n < 2 || n > 11 {
			t.Errorf("%d polls in a second", n)
		}
	})
}

// Each poll of a FIFO queue has an attempt ID of its own, which the SDK repeats
// when it repeats the request; a standard queue takes none.
func TestAttemptID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("s", nil)
		f.create("o.fifo", nil)
		p := connect(t, f, nil)
		for name, want := range map[string]bool{"s": false, "o": true} {
			var asked []*sqs.ReceiveMessageInput
			p.api = polling{f, false, new(sync.Mutex), &asked}
			q := open(t, p, name, nil)
			receiveBodies(t, q, 1, 0)
			receiveBodies(t, q, 1, 0)
			a, b := asked[0].ReceiveRequestAttemptId, asked[1].ReceiveRequestAttemptId
			if (a != nil) != want || (b != nil) != want || want && *a == *b {
				t.Errorf("%s: attempts %v, %v", name, a, b)
			}
		}
	})
}

// slowLine answers requests in its own process, and brings the body of an answer that has
// messages half a second after its head.
type slowLine struct{ began time.Time } // when that head came

func (s *slowLine) Do(r *http.Request) (*http.Response, error) {
	a := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}}
	body := func(text string) io.Reader { return strings.NewReader(text) }
	switch r.Header.Get("X-Amz-Target") {
	case "AmazonSQS.GetQueueUrl":
		a.Body = io.NopCloser(body(`{"QueueUrl":"http://sqs.invalid/0/q"}`))
	case "AmazonSQS.GetQueueAttributes":
		a.Body = io.NopCloser(body(`{"Attributes":{"VisibilityTimeout":"3"}}`))
	case "AmazonSQS.ReceiveMessage":
		s.began = time.Now()
		late := &lateReader{body(`{"Messages":[{"MessageId":"m","ReceiptHandle":"h","Body":"m","MD5OfBody":"6f8f57715090da2632453988d9a1501b"}]}`), 500 * time.Millisecond}
		a.Body = io.NopCloser(late)
	default:
		a.Body = io.NopCloser(body(`{"Successful":[{"Id":"0"}]}`))
	}
	return a, nil
}

type lateReader struct {
	io.Reader
	late time.Duration
}

func (r *lateReader) Read(p []byte) (int, error) {
	time.Sleep(r.late) // in a bubble
	r.late = 0
	return r.Reader.Read(p)
}

// A lock runs from before the answer began, however long the rest of it takes.
func TestLockOfSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := &slowLine{}
		cfg := awspeer.Config("http://sqs.invalid")
		cfg.HTTPClient = line
		p, err := New(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		q := open(t, p, "q", nil)
		d := receiveBodies(t, q, 1, 0, "m")
		if late := d[0].LockedUntil.Sub(line.began.Add(3 * time.Second)); late > 0 {
			t.Errorf("the lock is taken to last %s too long", late)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A Close beside another waits with it, and one that is in a hurry hurries both:
// when the provider is closed nothing of its queues is left.
func TestCloseBesideClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		p := connect(t, f, nil)
		q := open(t, p, "q", nil)
		go func() { _, _ = q.Receive(context.Background(), 1, 20*time.Second) }()
		synctest.Wait()
		begin := time.Now()
		first := make(chan error, 1)
		go func() { first <- q.Close(context.Background()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantError(t, p.Close(ctx), context.DeadlineExceeded)
		if err := <-first; err != nil {
			t.Errorf("the first: %v", err)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("closed after %s", took)
		}
	})
}
