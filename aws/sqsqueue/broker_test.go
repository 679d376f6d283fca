package sqsqueue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/awspeer"
)

func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("plain", nil)
		f.create("both", nil)
		f.create("both.fifo", nil)
		f.create("ordered.fifo", nil)
		p := connect(t, f, nil)
		for name, sessions := range map[string]driver.Support{
			"plain": driver.None, "both": driver.None, "both.fifo": driver.Emulated, "ordered": driver.Emulated, "ordered.fifo": driver.Emulated,
		} {
			if got := open(t, p, name, nil).Capabilities().Sessions; got != sessions {
				t.Errorf("%s: sessions %s, want %s", name, got, sessions)
			}
		}
		looked := f.count("GetQueueUrl")
		open(t, p, "ordered", nil)
		// Only what exists is remembered: "ordered" itself is asked for again.
		if n := f.count("GetQueueUrl") - looked; n != 1 {
			t.Errorf("%d look-ups of a queue that is known", n)
		}
		for _, name := range []string{"", "with space", "with.dot", ".fifo", "a.fifo.fifo", strings.Repeat("n", 81), strings.Repeat("n", 76) + ".fifo"} {
			_, err := p.Open(t.Context(), name, nil)
			wantError(t, err, driver.ErrInvalidName)
		}
		_, err := p.Open(t.Context(), "missing", nil)
		wantError(t, err, driver.ErrNotFound)
		if got := p.LogicalName("ordered.fifo"); got != "ordered" {
			t.Errorf("logical name %q", got)
		}
	})
}

func TestCapabilities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("d", nil)
		attrs := fakeRedrive("d", 7)
		attrs["VisibilityTimeout"], attrs["MessageRetentionPeriod"] = "45", "1209600"
		f.create("q", attrs)
		f.create("zero", map[string]string{"VisibilityTimeout": "0"})
		p := connect(t, f, nil)
		c := open(t, p, "q", nil).Capabilities()
		if c.Lock != 45*time.Second || c.Retention != 14*24*time.Hour || c.MaxDeliveries != 7 || c.DeadLetter != driver.Copy ||
			c.MaxBody != 774144 || c.Schedule != driver.Native || c.MaxDelay != 15*time.Minute || c.Fenced || c.BinaryBody || c.TTL != driver.None {
			t.Errorf("capabilities %+v, want those of a standard queue with these attributes", c)
		}
		if c := open(t, p, "zero", nil).Capabilities(); c.Lock != 30*time.Second {
			t.Errorf("a queue that hides messages for no time has a lock of %s", c.Lock)
		}
		if c := open(t, p, "q", &driver.QueueOptions{Lock: 1500 * time.Millisecond}).Capabilities(); c.Lock != 2*time.Second {
			t.Errorf("lock %s", c.Lock)
		}
		for _, o := range []driver.QueueOptions{{Lock: -1}, {Lock: 12*time.Hour + 1}} {
			_, err := p.Open(t.Context(), "q", &o)
			wantError(t, err, errors.ErrUnsupported)
		}
	})
}

func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		f.create("o.fifo", nil)
		p := connect(t, f, nil)
		q := open(t, p, "q", nil)
		begin := time.Now()
		r := q.Send(t.Context(), []*driver.Message{
			{ID: "1", Body: []byte("1"), NotBefore: begin.Add(1500 * time.Millisecond)},
			{ID: "2", Body: []byte("2"), NotBefore: begin.Add(15 * time.Minute)},
			{ID: "3", Body: []byte("3"), NotBefore: begin.Add(15*time.Minute + time.Second)},
			{ID: "4", Body: []byte("4"), NotBefore: begin.Add(-time.Hour)},
		})
		if r[0].Err != nil || r[1].Err != nil || r[3].Err != nil {
			t.Fatal(r)
		}
		wantError(t, r[2].Err, errors.ErrUnsupported)
		r = open(t, p, "o", nil).Send(t.Context(), []*driver.Message{{ID: "5", NotBefore: begin.Add(time.Second)}})
		wantError(t, r[0].Err, errors.ErrUnsupported)
		for _, c := range []struct {
			body  string
			after time.Duration
		}{{"4", 0}, {"1", 2 * time.Second}, {"2", 15 * time.Minute}} {
			settle(t, q, driver.Complete, receiveBodies(t, q, 10, 20*time.Minute, c.body)...)
			if took := time.Since(begin); took != c.after {
				t.Errorf("%s came after %s, want %s", c.body, took, c.after)
			}
		}
	})
}

// A standard queue keeps no order, so it refuses what needs it.
func TestSessionOnStandardQueue(t *testing.T) {
	f := newFakeSQS()
	f.create("q", nil)
	q := open(t, connect(t, f, nil), "q", nil)
	wantError(t, q.Send(t.Context(), []*driver.Message{{ID: "1", SessionID: "s"}})[0].Err, errors.ErrUnsupported)
}

func TestBrokerClose(t *testing.T) {
	f := newFakeSQS()
	f.create("q", nil)
	p := newBroker(f, &Options{})
	q := open(t, p, "q", nil)
	for range 2 {
		if err := p.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	_, err := p.Open(t.Context(), "q", nil)
	wantError(t, err, driver.ErrClosed)
	_, err = q.Stats(t.Context())
	wantError(t, err, driver.ErrClosed)
	_, err = q.DeadLetters(t.Context())
	wantError(t, err, driver.ErrClosed)
}

func TestOptions(t *testing.T) {
	cfg := aws.Config{Region: "us-east-1"}
	for _, o := range []Options{
		{AccountID: "1"}, {AccountID: "12345678901x"}, {MaxBatchBytes: 1023}, {MaxBatchBytes: 1<<20 + 1},
		{Poll: time.Millisecond}, {Poll: 21 * time.Second}, {Poll: 1500 * time.Millisecond}, {SessionBatch: 11}, {SessionBatch: -1},
	} {
		if _, err := New(cfg, &o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
	if _, err := New(aws.Config{}, nil); err == nil {
		t.Error("no region is accepted")
	}
	if _, err := New(cfg, nil); err != nil {
		t.Error(err)
	}
}

func TestURL(t *testing.T) {
	region, o, err := parseURL("sqs://eu-west-1/?endpoint=http%3A%2F%2F127.0.0.1%3A4566&account=123456789012&max_batch_bytes=262144&poll=5s&session_batch=10&dead_letter_suffix=-dead")
	if err != nil || region != "eu-west-1" || o.Endpoint != "http://127.0.0.1:4566" || o.AccountID != "123456789012" ||
		o.MaxBatchBytes != 262144 || o.Poll != 5*time.Second || o.SessionBatch != 10 || o.DeadLetterQueue("q") != "q-dead" {
		t.Errorf("%q, %+v, %v", region, o, err)
	}
	const secret = "s3cr3t"
	for _, u := range []string{
		"https://eu-west-1/", "sqs:eu-west-1", "sqs://key:" + secret + "@eu-west-1/", "sqs://eu-west-1:80/", "sqs://eu-west-1/" + secret, "sqs://eu-west-1/#" + secret,
		"sqs://r/?poll=" + secret, "sqs://r/?poll=5s&poll=6s", "sqs://r/?max_batch_bytes=" + secret, "sqs://r/?session_batch=" + secret, "sqs://r/?session_batch=11", "sqs://r/?account=" + secret,
		"sqs://r/?endpoint=" + secret, "sqs://r/?endpoint=http://u:" + secret + "@h", "sqs://r/?unknown=" + secret, "sqs://r/?dead_letter_suffix=", "sqs://r/?%zz", "sqs://%zz",
	} {
		_, _, err := parseURL(u)
		if err == nil {
			t.Errorf("%s is accepted", u)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error repeats a value: %v", err)
		}
	}
}

// Everything that a Broker needs comes out of a URL and the environment.
func TestOpenURL(t *testing.T) {
	url := awspeer.Fauxqs(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test-secret-of-forty-characters-as-of-aws")
	p, err := Open(t.Context(), "sqs://us-east-1/?poll=1s&endpoint="+url)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Open(t.Context(), "missing", nil)
	wantError(t, err, driver.ErrNotFound)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
