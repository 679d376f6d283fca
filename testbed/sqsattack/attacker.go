// Package sqsattack changes what AWS SQS stores, as an operator of the broker could.
// It is for demonstrations and tests. Do not use it on queues that matter: it takes
// every message out of a queue before it puts messages back, and loses them if the
// process ends in between.
package sqsattack

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/queue-runtime/queue/backoff"

	"github.com/queue-runtime/queue/driver"
)

// API is the part of *sqs.Client that an [Attacker] uses: GetQueueUrl and
// GetQueueAttributes to find a queue and count its messages, ReceiveMessage,
// DeleteMessageBatch and SendMessageBatch to replace them.
type API interface {
	GetQueueUrl(context.Context, *sqs.GetQueueUrlInput, ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) //nolint:revive // the SDK's name
	GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput, ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error)
	SendMessageBatch(context.Context, *sqs.SendMessageBatchInput, ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error)
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	DeleteMessageBatch(context.Context, *sqs.DeleteMessageBatchInput, ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error)
}

// Attacker reads and changes the messages that package sqsqueue stores. It
// implements drivertest.Attacker and decodes the stored form without the driver's
// code. Its methods must not be called concurrently for one queue.
//
// SQS shows a message only to a receiver and cannot change one. So Read receives
// and deletes all messages and sends them again, and Rewrite sends others.
type Attacker struct{ api API }

// New returns an attacker. A queue named Q is the SQS queue Q or Q.fifo, and its
// dead-letter queue is Q-dead or Q-dead.fifo.
func New(api API) *Attacker { return &Attacker{api} }

// storage is one SQS queue.
type storage struct {
	url  *string
	fifo bool
}

// find returns the SQS queue of a name.
func (a *Attacker) find(ctx context.Context, name string) (storage, error) {
	for _, suffix := range []string{"", ".fifo"} {
		out, err := a.api.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(name + suffix)})
		var missing *types.QueueDoesNotExist
		if errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return storage{}, err
		}
		return storage{out.QueueUrl, suffix != ""}, nil
	}
	return storage{}, fmt.Errorf("sqsattack: there is no queue %s and no queue %s.fifo", name, name)
}

// Limits of a request to SQS: messages, and bytes of bodies. A batch may have
// 1 MiB; the rest is left for attributes.
const (
	batchSize  = 10
	batchBytes = 900 << 10
)

// maxLooks and lookInterval bound the wait for messages that a receiver holds, to
// four seconds. The driver gives back within a second what arrived for a call that
// had ended.
const (
	maxLooks     = 80
	lookInterval = 50 * time.Millisecond
)

// drain removes and returns all messages of a queue, in order. In a FIFO queue the
// next message of a group arrives only after the one before it was deleted. drain
// ends when no receiver holds a message either, or after maxLooks.
func (a *Attacker) drain(ctx context.Context, url *string) ([]message, error) {
	var all []message
	in := &sqs.ReceiveMessageInput{
		QueueUrl: url, MaxNumberOfMessages: batchSize, VisibilityTimeout: 60, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameMessageGroupId},
	}
	for look := 0; ; {
		out, err := a.api.ReceiveMessage(ctx, in)
		if err != nil {
			return all, err
		}
		if len(out.Messages) == 0 {
			busy, err := a.busy(ctx, url)
			if look++; err != nil || !busy || look == maxLooks {
				return all, err
			}
			if err := pause(ctx, lookInterval); err != nil {
				return all, err
			}
			continue
		}
		gone := &sqs.DeleteMessageBatchInput{QueueUrl: url}
		for i, m := range out.Messages {
			gone.Entries = append(gone.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle})
			all = append(all, message{aws.ToString(m.Body), m.Attributes["MessageGroupId"], m.MessageAttributes})
		}
		deleted, err := a.api.DeleteMessageBatch(ctx, gone)
		if err != nil {
			return all, err
		}
		if len(deleted.Failed) > 0 {
			return all, fmt.Errorf("delete: %s", aws.ToString(deleted.Failed[0].Code))
		}
	}
}

// busy reports whether a queue has messages, held by a receiver or not.
func (a *Attacker) busy(ctx context.Context, url *string) (bool, error) {
	names := []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible}
	out, err := a.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: url, AttributeNames: names})
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
func (a *Attacker) store(ctx context.Context, q storage, all []message) error {
	for len(all) > 0 {
		in := &sqs.SendMessageBatchInput{QueueUrl: q.url}
		for size := 0; len(all) > 0 && len(in.Entries) < batchSize; all = all[1:] {
			m := &all[0]
			if size += len(m.body); size > batchBytes && len(in.Entries) > 0 {
				break
			}
			e := types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(len(in.Entries))), MessageBody: aws.String(m.body), MessageAttributes: m.attributes}
			if q.fifo {
				e.MessageGroupId, e.MessageDeduplicationId = aws.String(m.group), aws.String(rand.Text())
			}
			in.Entries = append(in.Entries, e)
		}
		out, err := a.api.SendMessageBatch(ctx, in)
		if err != nil {
			return err
		}
		if len(out.Failed) > 0 {
			return fmt.Errorf("store: %s", aws.ToString(out.Failed[0].Code))
		}
	}
	return nil
}

// Read returns the messages of a queue that are due and that no receiver holds.
func (a *Attacker) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	q, err := a.find(ctx, queue)
	if err != nil {
		return nil, err
	}
	out, _, err := a.look(ctx, q)
	return out, err
}

// look removes all messages and stores them again. It returns them decoded and as
// they were stored.
func (a *Attacker) look(ctx context.Context, q storage) ([]driver.Message, []message, error) {
	all, err := a.drain(ctx, q.url)
	// Messages that were removed are stored again even if ctx has ended.
	if err = errors.Join(err, a.store(context.WithoutCancel(ctx), q, all)); err != nil {
		return nil, nil, err
	}
	out, err := decodeAll(all)
	return out, all, err
}

// Rewrite replaces the messages that Read returns.
func (a *Attacker) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	q, err := a.find(ctx, queue)
	if err != nil {
		return err
	}
	all, err := a.drain(ctx, q.url)
	if err != nil {
		return errors.Join(err, a.store(context.WithoutCancel(ctx), q, all))
	}
	before, err := decodeAll(all)
	if err != nil {
		return errors.Join(err, a.store(ctx, q, all))
	}
	after := f(before)
	forged := make([]message, len(after))
	for i := range after {
		if forged[i], err = encode(&after[i]); err != nil {
			return errors.Join(err, a.store(ctx, q, all))
		}
	}
	return a.store(ctx, q, forged)
}

// DeadLetters returns the dead letters of a queue, and the cause of each.
func (a *Attacker) DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	q, err := a.find(ctx, queue+"-dead")
	if err != nil {
		return nil, nil, err
	}
	out, all, err := a.look(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	why := make([]driver.DeadLetter, len(all))
	for i := range all {
		v, ok := all[i].attributes["qrt-sqs-dead-letter"]
		if !ok {
			why[i] = driver.DeadLetter{Queue: queue, Reason: "max_deliveries"} // moved by SQS itself
			continue
		}
		var d struct{ Reason, Description, Queue string }
		if err := json.Unmarshal([]byte(aws.ToString(v.StringValue)), &d); err != nil {
			return nil, nil, errors.New("the attribute qrt-sqs-dead-letter is not JSON")
		}
		why[i] = driver.DeadLetter{Reason: d.Reason, Description: d.Description, Queue: d.Queue}
	}
	return out, why, nil
}

// pause waits for d.
func pause(ctx context.Context, d time.Duration) error {
	if !backoff.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}
