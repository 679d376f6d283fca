package sqsqueue

import (
	"encoding/json"
	"maps"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

// systemAttributes are what a receipt asks of SQS beside the message.
var systemAttributes = []types.MessageSystemAttributeName{
	types.MessageSystemAttributeNameApproximateReceiveCount,
	types.MessageSystemAttributeNameSentTimestamp,
	types.MessageSystemAttributeNameMessageGroupId,
	types.MessageSystemAttributeNameMessageDeduplicationId,
	types.MessageSystemAttributeNameDeadLetterQueueSourceArn,
}

func system(m *types.Message, name types.MessageSystemAttributeName) string {
	return m.Attributes[string(name)]
}

// delivery makes a driver.Delivery of a message, all but its lock and receipt.
// It fails on none: what cannot be decoded is handed up as Undecodable.
func (q *queue) delivery(raw *types.Message) *driver.Delivery {
	d := &driver.Delivery{BrokerID: aws.ToString(raw.MessageId)}
	if n, err := strconv.Atoi(system(raw, types.MessageSystemAttributeNameApproximateReceiveCount)); err == nil {
		d.Count = n
	}
	d.Count = max(d.Count, 1)
	if ms, err := strconv.ParseInt(system(raw, types.MessageSystemAttributeNameSentTimestamp), 10, 64); err == nil {
		d.EnqueuedAt = time.UnixMilli(ms)
	}
	d.ID = d.BrokerID // of a message from another producer
	attrs := raw.MessageAttributes
	if _, moved := attrs[attrDeadLetter]; moved || q.deadLetters {
		d.DeadLetter, attrs = q.deadLetter(raw)
	}
	session, state := parseMetadata(&d.Message, attrs)
	d.Received = received(attrs)
	if group := system(raw, types.MessageSystemAttributeNameMessageGroupId); q.fifo && group != "" {
		session = sessionOf(group, d.ID, session)
	}
	d.SessionID = session
	if dedup := system(raw, types.MessageSystemAttributeNameMessageDeduplicationId); dedup != token(d.ID) {
		d.DedupID = dedup
	}
	encoding := ""
	if v, ok := attrs[attrEncoding]; ok {
		if encoding = value(v); encoding == "" {
			encoding = "?" // present and empty is not absent
		}
	}
	var ok bool
	d.Body, d.Sealed, ok = decodeBody(aws.ToString(raw.Body), encoding)
	d.Undecodable = !ok || state == metadataBroken
	d.DuplicateName = state == metadataDuplicate
	if d.Undecodable {
		d.Body = []byte(aws.ToString(raw.Body))
	}
	return d
}

// received are the attributes of a message as SQS delivered them (driver.Message).
type received map[string]types.MessageAttributeValue

// typed returns the attribute of that name if it is of another type than text and has
// still the value that it was received with.
func (r received) typed(name, now string) (types.MessageAttributeValue, bool) {
	v, ok := r[name]
	return v, ok && aws.ToString(v.DataType) != stringType && value(v) == now
}

// deadLetter reads why a message is in a dead-letter queue, and returns the attributes
// without that reason. If no attribute says why, SQS moved the message itself.
func (q *queue) deadLetter(raw *types.Message) (*driver.DeadLetter, map[string]types.MessageAttributeValue) {
	d := &driver.DeadLetter{Reason: reasonMaxDeliveries}
	if arn, err := parseARN(system(raw, types.MessageSystemAttributeNameDeadLetterQueueSourceArn)); err == nil {
		d.Queue = q.broker.LogicalName(arn.name)
	}
	attrs := raw.MessageAttributes
	v, ok := attrs[attrDeadLetter]
	if !ok {
		return only(q.deadLetters, d), attrs
	}
	attrs = maps.Clone(attrs)
	delete(attrs, attrDeadLetter)
	var w deadLetter
	if err := json.Unmarshal([]byte(value(v)), &w); err != nil {
		return only(q.deadLetters, d), attrs
	}
	d.Reason, d.Description, d.Queue = w.Reason, w.Description, w.Queue
	d.At, _ = time.Parse(time.RFC3339Nano, w.At)
	for _, a := range w.Attributes {
		if _, there := attrs[a[0]]; !there {
			attrs[a[0]] = restored(a)
		}
	}
	return only(q.deadLetters, d), attrs
}

// only returns d on a dead-letter queue: a message that was moved back by hand
// still carries why it once was there.
func only(deadLetters bool, d *driver.DeadLetter) *driver.DeadLetter {
	if !deadLetters {
		return nil
	}
	return d
}

// reasonMaxDeliveries is the reason of messages that SQS moved by the redrive
// policy.
const reasonMaxDeliveries = "max_deliveries"
