package sqsqueue

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/aws/internal/awspeer"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// attacker controls the broker over a client of the SDK. It knows the stored form
// by itself: nothing here uses the driver's code.
type attacker struct {
	api  api
	kind kind
}

// drain takes everything out of a queue, in order. Only a message that is deleted
// lets the next of its group come.
func (a attacker) drain(ctx context.Context, name string) (url *string, all []types.Message, err error) {
	u, err := a.api.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(name + string(a.kind))})
	if err != nil {
		return nil, nil, err
	}
	for looked := false; ; {
		out, err := a.api.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: u.QueueUrl, MaxNumberOfMessages: 10, VisibilityTimeout: 60, MessageAttributeNames: []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"},
		})
		if err != nil || len(out.Messages) == 0 && looked {
			return u.QueueUrl, all, err
		}
		if len(out.Messages) == 0 {
			// The victim's last poll may still be under way; what it takes it
			// soon gives back.
			looked = true
			pause(ctx, 2*attackGrace)
			continue
		}
		looked = false
		in := &sqs.DeleteMessageBatchInput{QueueUrl: u.QueueUrl}
		for i, m := range out.Messages {
			in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: m.ReceiptHandle})
		}
		if _, err := a.api.DeleteMessageBatch(ctx, in); err != nil {
			return nil, nil, err
		}
		all = append(all, out.Messages...)
	}
}

// store sends messages as they are.
func (a attacker) store(ctx context.Context, url *string, all []types.Message) error {
	for part := range slices.Chunk(all, 10) {
		in := &sqs.SendMessageBatchInput{QueueUrl: url}
		for i, m := range part {
			e := types.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), MessageBody: m.Body, MessageAttributes: m.MessageAttributes}
			if a.kind == fifoKind {
				e.MessageGroupId, e.MessageDeduplicationId = aws.String(m.Attributes["MessageGroupId"]), aws.String(rand.Text())
			}
			in.Entries = append(in.Entries, e)
		}
		out, err := a.api.SendMessageBatch(ctx, in)
		if err != nil {
			return err
		}
		if len(out.Failed) > 0 {
			return fmt.Errorf("message %s: %s", aws.ToString(out.Failed[0].Id), aws.ToString(out.Failed[0].Code))
		}
	}
	return nil
}

// stored is the JSON of the attribute qrt-sqs-packed.
type stored struct {
	ID          string      `json:"id,omitempty"`
	Session     string      `json:"session,omitempty"`
	Correlation string      `json:"correlation,omitempty"`
	ContentType string      `json:"content_type,omitempty"`
	Attributes  [][2]string `json:"attributes,omitempty"`
}

func (a attacker) decode(m types.Message) (driver.Message, error) {
	var out driver.Message
	var s stored
	out.Attributes = make(map[string]string)
	encoding := ""
	for name, v := range m.MessageAttributes {
		text := aws.ToString(v.StringValue)
		switch name {
		case "qrt-sqs-id":
			out.ID = text
		case "qrt-sqs-encoding":
			encoding = text
		case "qrt-sqs-packed":
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				return out, err
			}
		case "qrt-sqs-dead-letter":
		default:
			out.Attributes[name] = text
		}
	}
	for _, p := range s.Attributes {
		out.Attributes[p[0]] = p[1]
	}
	if s.ID != "" {
		out.ID = s.ID
	}
	out.SessionID, out.CorrelationID, out.ContentType = s.Session, s.Correlation, s.ContentType
	if g := m.Attributes["MessageGroupId"]; out.SessionID == "" && g != out.ID {
		out.SessionID = g
	}
	out.Body = []byte(aws.ToString(m.Body))
	switch encoding {
	case "qre1-base64", "base64":
		b, err := base64.StdEncoding.DecodeString(aws.ToString(m.Body))
		if err != nil {
			return out, err
		}
		out.Body, out.Sealed = b, encoding == "qre1-base64"
	case "empty":
		out.Body = nil
	}
	return out, nil
}

func (a attacker) encode(m driver.Message) (types.Message, error) {
	s := stored{Correlation: m.CorrelationID, ContentType: m.ContentType, Session: m.SessionID}
	for k, v := range m.Attributes {
		s.Attributes = append(s.Attributes, [2]string{k, v})
	}
	packed, err := json.Marshal(s)
	if err != nil {
		return types.Message{}, err
	}
	str := func(v string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(v)}
	}
	out := types.Message{
		Body: aws.String(string(m.Body)), Attributes: map[string]string{"MessageGroupId": m.SessionID},
		MessageAttributes: map[string]types.MessageAttributeValue{"qrt-sqs-id": str(m.ID), "qrt-sqs-packed": str(string(packed))},
	}
	if m.SessionID == "" {
		out.Attributes["MessageGroupId"] = m.ID
	}
	text := len(m.Body) > 0
	for _, c := range m.Body {
		text = text && c >= ' ' && c < 0x7F
	}
	switch {
	case m.Sealed:
		out.Body = aws.String(base64.StdEncoding.EncodeToString(m.Body))
		out.MessageAttributes["qrt-sqs-encoding"] = str("qre1-base64")
	case !text:
		out.Body = aws.String(base64.StdEncoding.EncodeToString(m.Body))
		out.MessageAttributes["qrt-sqs-encoding"] = str("base64")
	}
	return out, nil
}

func (a attacker) decodeAll(all []types.Message) ([]driver.Message, error) {
	out := make([]driver.Message, len(all))
	for i, m := range all {
		var err error
		if out[i], err = a.decode(m); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Read implements drivertest.Attacker.
func (a attacker) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	url, all, err := a.drain(ctx, queue)
	if err != nil {
		return nil, err
	}
	out, err := a.decodeAll(all)
	return out, errors.Join(err, a.store(ctx, url, all))
}

// Rewrite implements drivertest.Attacker.
func (a attacker) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	url, all, err := a.drain(ctx, queue)
	if err != nil {
		return err
	}
	old, err := a.decodeAll(all)
	if err != nil {
		return errors.Join(err, a.store(ctx, url, all))
	}
	var forged []types.Message
	for _, m := range f(old) {
		raw, err := a.encode(m)
		if err != nil {
			return err
		}
		forged = append(forged, raw)
	}
	return a.store(ctx, url, forged)
}

// DeadLetters implements drivertest.Attacker.
func (a attacker) DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	url, all, err := a.drain(ctx, queue+"-dead")
	if err != nil {
		return nil, nil, err
	}
	if err := a.store(ctx, url, all); err != nil {
		return nil, nil, err
	}
	out, err := a.decodeAll(all)
	if err != nil {
		return nil, nil, err
	}
	why := make([]driver.DeadLetter, len(all))
	for i, m := range all {
		why[i].Reason = "max_deliveries"
		v, ok := m.MessageAttributes["qrt-sqs-dead-letter"]
		if !ok {
			continue
		}
		var d struct{ Reason, Description, Queue string }
		if err := json.Unmarshal([]byte(aws.ToString(v.StringValue)), &d); err != nil {
			return nil, nil, err
		}
		why[i] = driver.DeadLetter{Reason: d.Reason, Description: d.Description, Queue: d.Queue}
	}
	return out, why, nil
}

// attackGrace is how soon the victim gives back what a last poll brought, so that
// the attacker need not wait for it.
const attackGrace = 100 * time.Millisecond

// underAttack gives a harness's brokers an attacker.
func underAttack(h drivertest.Harness, a attacker) drivertest.Harness {
	start := h.Start
	h.Start = func(t drivertest.T) *drivertest.Instance {
		b := start(t)
		mine := a
		if mine.api == nil {
			mine.api = b.Attacker.(attacker).api // the case's own fake
		}
		b.Attacker = mine
		connect := b.Connect
		b.Connect = func(ctx context.Context) (driver.Broker, error) {
			p, err := connect(ctx)
			if err == nil {
				p.(*Broker).surplusGrace = attackGrace
			}
			return p, err
		}
		return b
	}
	return h
}

func TestAttacksFake(t *testing.T) {
	for name, k := range map[string]kind{"standard": standard, "fifo": fifoKind} {
		t.Run(name, func(t *testing.T) {
			drivertest.Attacks(drivertest.NewIn(t, synctest.Test), underAttack(fakeHarness(k), attacker{kind: k}))
		})
	}
}

func TestAttacksFauxqs(t *testing.T) {
	cfg := awspeer.Config(awspeer.Fauxqs(t))
	attacks(t, peer{cfg: cfg})
}

func TestAttacksLive(t *testing.T) {
	attacks(t, peer{cfg: live(t), slack: 20 * time.Second})
}

func attacks(t *testing.T, p peer) {
	t.Parallel()
	for name, k := range map[string]kind{"standard": standard, "fifo": fifoKind} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := underAttack(p.harness(k), attacker{rawClient(p.cfg), k})
			h.AttackAttempts = 6 // TestAttacksFake makes 20
			drivertest.Attacks(beside(t), h)
		})
	}
}
