package sqsqueue

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/queue-runtime/queue/driver"
)

// Permission is an action on a queue, and whether this caller may do it.
type Permission struct {
	// Action is the name that a policy has for it, such as "sqs:SendMessage".
	Action string
	// Queue is the queue as SQS names it.
	Queue string
	// DeadLetters: it is the dead-letter queue.
	DeadLetters bool
	// Err is nil if the action is allowed. It wraps driver.ErrPermission
	// if it is not, and is another error if nothing can be said.
	Err error
}

// Permissions finds out what this caller may do to a queue and to its dead-letter
// queue, as far as sending, receiving and dead-lettering need it.
//
// It does nothing to the queues: each call is one that SQS has to refuse for what
// it says, such as a handle that is none or a batch without entries, and SQS looks
// at the policies before that (Developer Guide, access control process workflow).
// Rights on a KMS key are not looked at. It fails if the queue cannot be found, which needs
// sqs:GetQueueUrl.
func (b *Broker) Permissions(ctx context.Context, name string) ([]Permission, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	full, url, err := b.lookup(ctx, name, b.o.AccountID)
	if err != nil {
		return nil, err
	}
	attrs, err := b.attributes(ctx, url)
	list := []Permission{{Action: "sqs:GetQueueAttributes", Queue: full, Err: err}}
	list = append(list, b.tryAll(ctx, full, url, asQueue)...)
	var target deadLetterTarget
	if err == nil {
		q, err := newQueue(b, full, url, attrs, &driver.QueueOptions{}, asQueue)
		if err != nil {
			return nil, err
		}
		q.cancel()
		target = q.target
	}
	if target.name == "" || ctx.Err() != nil {
		return list, ctx.Err()
	}
	url, err = b.url(ctx, target.name, target.account)
	if err != nil {
		return append(list, Permission{Action: "sqs:GetQueueUrl", Queue: target.name, DeadLetters: true, Err: err}), ctx.Err()
	}
	_, err = b.attributes(ctx, url)
	list = append(list, Permission{Action: "sqs:GetQueueAttributes", Queue: target.name, DeadLetters: true, Err: err})
	return append(list, b.tryAll(ctx, target.name, url, asDeadLetters)...), ctx.Err()
}

// Values that are out of bounds (API Reference, ReceiveMessage): both, so that no
// service of this protocol receives anything.
const (
	tooMany = maxEntries + 1
	tooLong = int32(MaxPoll/time.Second) + 1
)

// noHandle is no receipt handle. SQS refuses it for its entry, so that the request
// as a whole says whether the action is allowed.
const noHandle = "no-such-handle"

func (b *Broker) tryAll(ctx context.Context, full, url string, deadLetters bool) []Permission {
	u := aws.String(url)
	var list []Permission
	for _, a := range []struct {
		action string
		call   func() error
	}{
		{"sqs:SendMessage", func() error {
			_, err := b.api.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: u, Entries: []types.SendMessageBatchRequestEntry{}})
			return err
		}},
		{"sqs:ReceiveMessage", func() error {
			_, err := b.api.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: u, MaxNumberOfMessages: tooMany, WaitTimeSeconds: tooLong})
			return err
		}},
		{"sqs:DeleteMessage", func() error {
			_, err := b.api.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: u, Entries: []types.DeleteMessageBatchRequestEntry{
				{Id: aws.String("0"), ReceiptHandle: aws.String(noHandle)}}})
			return err
		}},
		{"sqs:ChangeMessageVisibility", func() error {
			_, err := b.api.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: u, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{
				{Id: aws.String("0"), ReceiptHandle: aws.String(noHandle)}}})
			return err
		}},
	} {
		err := classify(ctx, a.action, a.call())
		var refused smithy.APIError
		if k := driver.KindOf(err); errors.As(err, &refused) && (k == driver.Other || k == driver.Invalid || k == driver.LockLost) {
			err = nil // for what the call says, as it should be
		}
		list = append(list, Permission{Action: a.action, Queue: full, DeadLetters: deadLetters, Err: err})
	}
	return list
}
