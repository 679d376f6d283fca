package sqsqueue

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

// foreignAttributes are n attributes as another program sets them, of all types.
func foreignAttributes(n int) map[string]types.MessageAttributeValue {
	all := make(map[string]types.MessageAttributeValue, n)
	for i := range n {
		switch name := fmt.Sprintf("a%d", i); i % 3 {
		case 0:
			all[name] = types.MessageAttributeValue{DataType: aws.String("Binary.gif"), BinaryValue: []byte{0xff, byte(i)}} //nolint:gosec // G115: small
		case 1:
			all[name] = types.MessageAttributeValue{DataType: aws.String("Number"), StringValue: aws.String(fmt.Sprint(i))}
		default:
			all[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String("v")}
		}
	}
	return all
}

// sendForeign sends a message as another program would.
func sendForeign(t *testing.T, f *fakeSQS, queue string, attrs map[string]types.MessageAttributeValue) {
	t.Helper()
	out, err := f.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: aws.String("fake://" + queue), Entries: []types.SendMessageBatchRequestEntry{
		{Id: aws.String("0"), MessageBody: aws.String("m"), MessageAttributes: attrs},
	}})
	if err != nil || len(out.Failed) > 0 {
		t.Fatal(err, out.Failed)
	}
}

// stored are the attributes of the first message of a queue, without the driver's.
func (f *fakeSQS) stored(queue string) map[string]types.MessageAttributeValue {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]types.MessageAttributeValue)
	for name, v := range f.queues[queue].messages[0].attrs {
		if !driverName(name) {
			out[name] = v
		}
	}
	return out
}

// TestForeignTypes: what another program sent is dead-lettered, and sent again, with
// the types of its attributes, also when all ten are used and none is a string.
func TestForeignTypes(t *testing.T) {
	binary := make(map[string]types.MessageAttributeValue)
	for i := range 10 {
		binary[fmt.Sprintf("b%d", i)] = types.MessageAttributeValue{DataType: aws.String("Binary"), BinaryValue: []byte{0xfe, byte(i)}} //nolint:gosec // G115: small
	}
	for name, c := range map[string]struct {
		attrs map[string]types.MessageAttributeValue
		again bool // there is room to send it again as it was
	}{
		"seven":      {foreignAttributes(7), true},
		"ten":        {foreignAttributes(10), true},
		"ten binary": {binary, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSQS()
				f.create("q", nil)
				f.create("q-dead", nil)
				q := open(t, connect(t, f, &Options{DeadLetterQueue: func(q string) string { return q + "-dead" }}), "q", nil)
				sendForeign(t, f, "q", c.attrs)
				settle(t, q, driver.MoveToDeadLetter, receive(t, q, 1, time.Second)...)
				dead := receive(t, deadLetters(t, q), 1, time.Second)[0]
				for name, v := range c.attrs {
					if dead.Attributes[name] != value(v) {
						t.Errorf("attribute %s of the dead letter is %q, was %q", name, dead.Attributes[name], value(v))
					}
				}
				err := q.Send(t.Context(), []*driver.Message{&dead.Message})[0].Err
				if !c.again {
					wantError(t, err, driver.ErrInvalid)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				got := f.stored("q")
				for name, want := range c.attrs {
					if aws.ToString(want.DataType) == "String" {
						continue // may share an attribute
					}
					if !reflect.DeepEqual(got[name], want) {
						t.Errorf("attribute %s was sent again as %s %q, was %s %q", name, aws.ToString(got[name].DataType), value(got[name]), *want.DataType, value(want))
					}
				}
				again := receive(t, q, 1, time.Second)[0]
				if !reflect.DeepEqual(again.Attributes, dead.Attributes) {
					t.Errorf("received again with %q, want %q", again.Attributes, dead.Attributes)
				}
			})
		})
	}
}

// TestChangedType: an attribute whose value was changed is text.
func TestChangedType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		f.create("p", nil)
		b := connect(t, f, nil)
		q, p := open(t, b, "q", nil), open(t, b, "p", nil)
		sendForeign(t, f, "q", foreignAttributes(2))
		m := receive(t, q, 1, time.Second)[0].Clone()
		m.Attributes["a1"] = "8"
		if err := p.Send(t.Context(), []*driver.Message{&m})[0].Err; err != nil {
			t.Fatal(err)
		}
		got := f.stored("p")
		if aws.ToString(got["a1"].DataType) != "String" || aws.ToString(got["a1"].StringValue) != "8" || !bytes.Equal(got["a0"].BinaryValue, []byte{0xff, 0}) {
			t.Errorf("sent %+v", got)
		}
	})
}

// TestSmallBatches: a queue with a small MaximumMessageSize gets no larger requests
// than services with the older limit take, and a request that is too long all the same
// is sent in halves.
func TestSmallBatches(t *testing.T) {
	for name, c := range map[string]struct {
		message string // MaximumMessageSize
		batch   int    // what the service takes at once
		calls   int
	}{
		"the queue says so": {"262144", 256 << 10, 3},
		"nothing says so":   {"1048576", 256 << 10, 7}, // 1 + 2 + 4
		"larger":            {"1048576", 1 << 20, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSQS()
				f.batchLimit = c.batch
				f.create("q", map[string]string{"MaximumMessageSize": c.message})
				q := open(t, connect(t, f, nil), "q", nil)
				var all []*driver.Message
				for i := range 10 {
					all = append(all, &driver.Message{ID: fmt.Sprint(i), Body: bytes.Repeat([]byte("x"), 60<<10)})
				}
				for i, r := range q.Send(t.Context(), all) {
					if r.Err != nil || r.BrokerID == "" {
						t.Errorf("message %d: %+v", i, r)
					}
				}
				if n := f.count("SendMessageBatch"); n != c.calls {
					t.Errorf("%d requests, want %d", n, c.calls)
				}
				if n := len(f.depth("q")); n != 10 {
					t.Errorf("%d messages arrived", n)
				}
			})
		})
	}
}

// TestRetention: what a queue says of its retention is kept within what SQS can do, and
// refused if it can be true of none.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		p := connect(t, f, nil)
		for said, want := range map[string]time.Duration{
			"345600": 96 * time.Hour, "1": time.Minute, "1209600": 14 * 24 * time.Hour, "2000000000": 14 * 24 * time.Hour,
			"0": -1, "-5": -1, "never": -1, "99999999999999": -1,
		} {
			f.create("q", map[string]string{"MessageRetentionPeriod": said})
			q, err := p.Open(t.Context(), "q", nil)
			switch {
			case want < 0 && err == nil:
				t.Errorf("a retention of %q is accepted as %s", said, q.Capabilities().Retention)
			case want > 0 && err != nil:
				t.Errorf("a retention of %q: %v", said, err)
			case want > 0 && q.Capabilities().Retention != want:
				t.Errorf("a retention of %q is reported as %s, want %s", said, q.Capabilities().Retention, want)
			}
		}
	})
}

// TestValidText: the fast way over plain text says the same as the definition, byte by
// byte, of SQS's characters.
func TestValidText(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				b := bytes.Repeat([]byte("x"), length)
				b[at] = byte(c) //nolint:gosec // G115: below 256
				want := c >= 0x20 && c < 0x80 || c == '\t' || c == '\n' || c == '\r'
				if validText(b) != want {
					t.Fatalf("%q is valid: %t, want %t", b, !want, want)
				}
			}
		}
	}
	if !validText([]byte("größe 漢字 \U0001F600 and more")) || validText([]byte("\uFFFE")) {
		t.Error("characters beyond ASCII")
	}
}

func BenchmarkText(b *testing.B) {
	text := bytes.Repeat([]byte(`{"key":"value"},`), 8400/16)
	sealed := base64Body.EncodeToString(bytes.Repeat([]byte{1}, 8400*3/4))
	b.Run("valid", func(b *testing.B) {
		for b.Loop() {
			validText(text)
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			decodeBase64(sealed, true)
		}
	})
}
