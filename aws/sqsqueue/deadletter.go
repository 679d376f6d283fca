package sqsqueue

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

// deadLetterTarget is where a queue's dead letters go, by SQS's own name; an empty
// name is nowhere.
type deadLetterTarget struct{ name, account string }

// configuredTarget is the target of Options.DeadLetterQueue: a queue of the same
// kind, as SQS demands of a redrive policy. The other kind would lose a message's
// session, or invent one, and no receiver could open the message any more.
func configuredTarget(queue, name, account string) (deadLetterTarget, error) {
	fifo := strings.HasSuffix(queue, fifoSuffix)
	switch {
	case name == "":
		return deadLetterTarget{}, nil
	case fifo && !strings.HasSuffix(name, fifoSuffix):
		name += fifoSuffix
	case !fifo && strings.HasSuffix(name, fifoSuffix):
		return deadLetterTarget{}, driver.Unsupported("a FIFO queue for the dead letters of a standard queue")
	}
	if name == queue {
		return deadLetterTarget{}, driver.Unsupported("a queue as its own dead-letter queue")
	}
	if err := checkName(name); err != nil {
		return deadLetterTarget{}, err
	}
	return deadLetterTarget{name, account}, nil
}

// parseARN reads arn:PARTITION:sqs:REGION:ACCOUNT:NAME.
func parseARN(arn string) (deadLetterTarget, error) {
	part := strings.Split(arn, ":")
	if len(part) != 6 || part[0] != "arn" || part[2] != "sqs" || !isAccount(part[4]) || checkName(part[5]) != nil {
		return deadLetterTarget{}, driver.Errorf(driver.Other, "the queue's dead-letter target is not the ARN of a queue")
	}
	return deadLetterTarget{name: part[5], account: part[4]}, nil
}

// noDeadLetters is the answer of a queue that has no dead-letter queue. Nothing
// is ever deleted instead.
func noDeadLetters() error {
	return driver.Errorf(driver.NotFound, "no dead-letter queue: give the queue a redrive policy, or set Options.DeadLetterQueue: %w", errors.ErrUnsupported)
}

// DeadLetters implements driver.Queue. It needs sqs:GetQueueUrl,
// sqs:GetQueueAttributes and what receiving needs on the dead-letter queue.
func (q *queue) DeadLetters(ctx context.Context) (driver.Queue, error) {
	if err := q.check(ctx); err != nil {
		return nil, err
	}
	if q.deadLetters {
		return nil, driver.Unsupported("dead letters of a dead-letter queue")
	}
	if q.target.name == "" {
		return nil, noDeadLetters()
	}
	url, err := q.broker.url(ctx, q.target.name, q.target.account)
	if err != nil {
		return nil, err
	}
	d, err := q.broker.open(ctx, q.target.name, url, nil, asDeadLetters)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// copyToDeadLetters sends what s hold to the dead-letter queue, unchanged but for
// the attribute that says why, and returns one error or nil each.
func (q *queue) copyToDeadLetters(ctx context.Context, s []driver.Settlement, held []*receipt) []error {
	errs := make([]error, len(s))
	all := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	switch {
	case q.deadLetters:
		return all(driver.Unsupported("dead-lettering from a dead-letter queue"))
	case q.target.name == "":
		return all(noDeadLetters())
	}
	url, err := q.broker.url(ctx, q.target.name, q.target.account)
	if err != nil {
		return all(err)
	}
	var batch []types.SendMessageBatchRequestEntry
	var index []int
	bytes := 0
	flush := func() {
		_, sent := q.send(ctx, url, batch)
		for i, err := range sent {
			errs[index[i]] = err
		}
		batch, index, bytes = nil, nil, 0
	}
	now := time.Now()
	for i := range s {
		entry, size, err := q.deadLetterEntry(&s[i], held[i].raw, now)
		if err != nil {
			errs[i] = err
			continue
		}
		if len(batch) == maxEntries || len(batch) > 0 && bytes+size > q.batchLimit {
			flush()
		}
		batch, index, bytes = append(batch, entry), append(index, i), bytes+size
	}
	if len(batch) > 0 {
		flush()
	}
	return errs
}

// maxReason and maxDescription bound what a dead letter says of itself, in bytes. The
// longest message, which has deadLetterReserve left, keeps leastDescription.
const (
	maxReason        = 128
	maxDescription   = 4096
	leastDescription = 512
)

func (q *queue) deadLetterEntry(s *driver.Settlement, raw *types.Message, now time.Time) (types.SendMessageBatchRequestEntry, int, error) {
	var e types.SendMessageBatchRequestEntry
	attrs := maps.Clone(raw.MessageAttributes)
	if attrs == nil {
		attrs = make(map[string]types.MessageAttributeValue, 1)
	}
	delete(attrs, attrDeadLetter) // from an earlier time
	why := deadLetter{
		Reason:      clip(s.Reason, maxReason),
		Description: clip(s.Description, maxDescription),
		Queue:       q.broker.LogicalName(q.name),
		At:          now.UTC().Format(time.RFC3339Nano),
	}
	// This library sends nine at most; of ten, one gives way.
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		if len(attrs) < maxAttributes {
			break
		}
		if v := attrs[name]; !driverName(name) {
			why.Attributes = append(why.Attributes, yielded(name, v))
			delete(attrs, name)
		}
	}
	size, err := why.into(attrs)
	if err != nil {
		return e, 0, err
	}
	size += len(aws.ToString(raw.Body))
	if shorter := clip(why.Description, leastDescription); size > q.limit && shorter != why.Description {
		// The dead-letter queue is taken to have the limit of this one.
		why.Description = shorter
		if size, err = why.into(attrs); err != nil {
			return e, 0, err
		}
		size += len(aws.ToString(raw.Body))
	}
	if len(attrs) > maxAttributes {
		return e, 0, &driver.Error{Kind: driver.TooLarge, Err: &driver.TooLargeError{
			What: "attributes of the dead letter", Size: len(attrs), Limit: maxAttributes, Unit: "entries"}}
	}
	if size > q.broker.o.MaxBatchBytes {
		return e, 0, driver.NewTooLarge("dead letter", size, q.broker.o.MaxBatchBytes)
	}
	e.MessageBody, e.MessageAttributes = raw.Body, attrs
	if q.fifo {
		// The stored message's own ID: a repeat after a crash is dropped, and a
		// redriven copy, which has another, is not.
		e.MessageDeduplicationId = aws.String(token("dead-letter." + aws.ToString(raw.MessageId)))
		e.MessageGroupId = aws.String(system(raw, types.MessageSystemAttributeNameMessageGroupId))
	}
	return e, size, nil
}

// into puts d among attrs, and returns their size in bytes.
func (d *deadLetter) into(attrs map[string]types.MessageAttributeValue) (int, error) {
	text, err := asciiJSON(d)
	if err != nil {
		return 0, err
	}
	attrs[attrDeadLetter] = types.MessageAttributeValue{DataType: aws.String(stringType), StringValue: aws.String(text)}
	return attributesSize(attrs), nil
}

// yielded is an attribute as deadLetter has it, and restored undoes it: bytes are in
// base64.
func yielded(name string, v types.MessageAttributeValue) [3]string {
	if v.StringValue != nil {
		return [3]string{name, aws.ToString(v.DataType), *v.StringValue}
	}
	return [3]string{name, aws.ToString(v.DataType), base64Body.EncodeToString(v.BinaryValue)}
}

func restored(a [3]string) types.MessageAttributeValue {
	v := types.MessageAttributeValue{DataType: aws.String(a[1])}
	if b, err := base64Body.DecodeString(a[2]); err == nil && strings.HasPrefix(a[1], binaryType) {
		v.BinaryValue = b
	} else {
		v.StringValue = aws.String(a[2])
	}
	return v
}

// clip cuts s to at most n bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
