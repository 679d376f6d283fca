package testbed

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// sqsAttacker is somebody who controls what SQS stores, over a client of the SDK.
// It knows the stored form by itself: nothing here uses the driver's code.
//
// SQS shows a message only to who takes it, and has no way to change one. So to
// read is to take all out and to put the same back, and to rewrite is to put
// something else.
type sqsAttacker struct{ made *queueMaker }

var _ drivertest.Attacker = sqsAttacker{}

// What a request to SQS takes: messages, and bytes, which are fewer than the 1 MiB
// of a batch by what attributes may take.
const (
	sqsBatch      = 10
	sqsBatchBytes = 900 << 10
)

// How often, and how soon, the attacker looks again while somebody holds
// something: the driver keeps for a second what came to a call that had ended.
const (
	sqsLooks     = 80
	sqsLookAgain = 50 * time.Millisecond
)

// sqsMessage is what the attacker stores: a body, attributes, and the group on a
// FIFO queue.
type sqsMessage struct {
	body       string
	group      string
	attributes map[string]types.MessageAttributeValue
}

// drain takes everything out of a queue, in order. Of a FIFO queue only a message
// that is deleted lets the next of its group come. It ends when nothing is in the
// victim's hands either: what his last poll took, he soon gives back.
func (s sqsAttacker) drain(ctx context.Context, url *string) ([]sqsMessage, error) {
	var all []sqsMessage
	in := &sqs.ReceiveMessageInput{
		QueueUrl: url, MaxNumberOfMessages: sqsBatch, VisibilityTimeout: 60, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameMessageGroupId},
	}
	for look := 0; ; {
		out, err := s.made.client.ReceiveMessage(ctx, in)
		if err != nil {
			return all, err
		}
		if len(out.Messages) == 0 {
			busy, err := s.busy(ctx, url)
			if look++; err != nil || !busy || look == sqsLooks {
				return all, err
			}
			if err := pause(ctx, sqsLookAgain); err != nil {
				return all, err
			}
			continue
		}
		gone := &sqs.DeleteMessageBatchInput{QueueUrl: url}
		for i, m := range out.Messages {
			gone.Entries = append(gone.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle})
			all = append(all, sqsMessage{aws.ToString(m.Body), m.Attributes["MessageGroupId"], m.MessageAttributes})
		}
		deleted, err := s.made.client.DeleteMessageBatch(ctx, gone)
		if err != nil {
			return all, err
		}
		if len(deleted.Failed) > 0 {
			return all, fmt.Errorf("delete: %s", aws.ToString(deleted.Failed[0].Code))
		}
	}
}

// busy reports whether a queue has messages, in hands or not.
func (s sqsAttacker) busy(ctx context.Context, url *string) (bool, error) {
	names := []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible}
	out, err := s.made.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: url, AttributeNames: names})
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if n := out.Attributes[string(name)]; n != "" && n != "0" {
			return true, nil
		}
	}
	return false, nil
}

// store sends messages as they are.
func (s sqsAttacker) store(ctx context.Context, k sqsKind, url *string, all []sqsMessage) error {
	for len(all) > 0 {
		in := &sqs.SendMessageBatchInput{QueueUrl: url}
		for size := 0; len(all) > 0 && len(in.Entries) < sqsBatch; all = all[1:] {
			m := &all[0]
			if size += len(m.body); size > sqsBatchBytes && len(in.Entries) > 0 {
				break
			}
			e := types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(len(in.Entries))), MessageBody: aws.String(m.body), MessageAttributes: m.attributes}
			if k.fifo {
				e.MessageGroupId, e.MessageDeduplicationId = aws.String(m.group), aws.String(rand.Text())
			}
			in.Entries = append(in.Entries, e)
		}
		out, err := s.made.client.SendMessageBatch(ctx, in)
		if err != nil {
			return err
		}
		if len(out.Failed) > 0 {
			return fmt.Errorf("store: %s", aws.ToString(out.Failed[0].Code))
		}
	}
	return nil
}

// Read returns the messages of a queue that nobody holds and that are due.
func (s sqsAttacker) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	k, err := s.made.kind(queue)
	if err != nil {
		return nil, err
	}
	out, _, err := s.look(ctx, k, k.url)
	return out, err
}

// look takes out, puts back, and returns what it saw, also as it was stored.
func (s sqsAttacker) look(ctx context.Context, k sqsKind, url *string) ([]driver.Message, []sqsMessage, error) {
	all, err := s.drain(ctx, url)
	// What was taken goes back whatever happens.
	if err = errors.Join(err, s.store(context.WithoutCancel(ctx), k, url, all)); err != nil {
		return nil, nil, err
	}
	out, err := fromSQS(all)
	return out, all, err
}

// Rewrite replaces the messages that Read returns.
func (s sqsAttacker) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	k, err := s.made.kind(queue)
	if err != nil {
		return err
	}
	all, err := s.drain(ctx, k.url)
	if err != nil {
		return errors.Join(err, s.store(context.WithoutCancel(ctx), k, k.url, all))
	}
	before, err := fromSQS(all)
	if err != nil {
		return errors.Join(err, s.store(ctx, k, k.url, all))
	}
	after := f(before)
	forged := make([]sqsMessage, len(after))
	for i := range after {
		if forged[i], err = toSQS(&after[i]); err != nil {
			return errors.Join(err, s.store(ctx, k, k.url, all))
		}
	}
	return s.store(ctx, k, k.url, forged)
}

// DeadLetters returns the dead letters of a queue, and why each lies there.
func (s sqsAttacker) DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	k, err := s.made.kind(queue)
	if err != nil {
		return nil, nil, err
	}
	out, all, err := s.look(ctx, k, k.dead)
	if err != nil {
		return nil, nil, err
	}
	why := make([]driver.DeadLetter, len(all))
	for i := range all {
		v, ok := all[i].attributes["qrt-sqs-dead-letter"]
		if !ok {
			why[i] = driver.DeadLetter{Queue: queue, Reason: "max_deliveries"} // SQS's own doing
			continue
		}
		var d struct{ Reason, Description, Queue string }
		if err := json.Unmarshal([]byte(aws.ToString(v.StringValue)), &d); err != nil {
			return nil, nil, errors.New("a dead letter does not say why, in JSON")
		}
		why[i] = driver.DeadLetter{Reason: d.Reason, Description: d.Description, Queue: d.Queue}
	}
	return out, why, nil
}

// sqsPacked is the JSON of the attribute qrt-sqs-packed.
type sqsPacked struct {
	ID          string      `json:"id,omitempty"`
	Session     string      `json:"session,omitempty"`
	Correlation string      `json:"correlation,omitempty"`
	ContentType string      `json:"content_type,omitempty"`
	Attributes  [][2]string `json:"attributes,omitempty"`
}

func fromSQS(all []sqsMessage) ([]driver.Message, error) {
	out := make([]driver.Message, len(all))
	for i := range all {
		var err error
		if out[i], err = all[i].decode(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *sqsMessage) decode() (driver.Message, error) {
	var p sqsPacked
	out := driver.Message{Body: []byte(m.body)}
	put := func(name, value string) {
		if out.Attributes == nil {
			out.Attributes = make(map[string]string)
		}
		out.Attributes[name] = value
	}
	encoding := ""
	for name, v := range m.attributes {
		text := aws.ToString(v.StringValue)
		switch name {
		case "qrt-sqs-id":
			out.ID = text
		case "qrt-sqs-encoding":
			encoding = text
		case "qrt-sqs-packed":
			if err := json.Unmarshal([]byte(text), &p); err != nil {
				return out, errors.New("packed metadata is no JSON")
			}
		case "qrt-sqs-dead-letter", "traceparent", "tracestate":
		default:
			put(name, text)
		}
	}
	for _, a := range p.Attributes {
		put(a[0], a[1])
	}
	if p.ID != "" {
		out.ID = p.ID
	}
	out.SessionID, out.CorrelationID, out.ContentType = p.Session, p.Correlation, p.ContentType
	if out.SessionID == "" && m.group != out.ID {
		out.SessionID = m.group
	}
	switch encoding {
	case "qre1-base64", "base64":
		b, err := base64.StdEncoding.DecodeString(m.body)
		if err != nil {
			return out, errors.New("a body is no base64, and says that it is")
		}
		out.Body, out.Sealed = b, encoding == "qre1-base64"
	case "empty":
		out.Body = nil
	}
	return out, nil
}

func toSQS(m *driver.Message) (sqsMessage, error) {
	p := sqsPacked{Session: m.SessionID, Correlation: m.CorrelationID, ContentType: m.ContentType}
	for name, v := range m.Attributes {
		p.Attributes = append(p.Attributes, [2]string{name, v})
	}
	packed, err := json.Marshal(p)
	if err != nil {
		return sqsMessage{}, err
	}
	out := sqsMessage{body: string(m.Body), group: m.SessionID, attributes: make(map[string]types.MessageAttributeValue)}
	put := func(name, value string) {
		out.attributes[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(value)}
	}
	put("qrt-sqs-id", m.ID)
	put("qrt-sqs-packed", string(packed))
	if out.group == "" {
		out.group = m.ID
	}
	text := true
	for _, c := range m.Body {
		text = text && c >= ' ' && c < 0x7F
	}
	switch {
	case len(m.Body) == 0:
		out.body = "-" // SQS takes no empty body
		put("qrt-sqs-encoding", "empty")
	case m.Sealed:
		out.body = base64.StdEncoding.EncodeToString(m.Body)
		put("qrt-sqs-encoding", "qre1-base64")
	case !text:
		out.body = base64.StdEncoding.EncodeToString(m.Body)
		put("qrt-sqs-encoding", "base64")
	}
	return out, nil
}

// pause lets d pass.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
