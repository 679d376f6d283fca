package sqsqueue

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// fakeSQS is SQS as its documentation describes it, in memory, by the clock of
// package time: in a synctest bubble hours pass in no time. Where AWS leaves two
// behaviours open it has the one that is worse for a client:
//
//   - a FIFO queue answers with as many messages of one group as there are;
//   - a standard queue settles through any handle that a message ever had, even
//     while another receiver holds it;
//   - a long poll whose caller has gone takes messages along, and their locks
//     run out.
type fakeSQS struct {
	mu         sync.Mutex
	changed    chan struct{} // closed and replaced at every change
	queues     map[string]*fakeQueue
	calls      map[string]int
	serial     int
	polls      sync.WaitGroup
	moved      map[string]string // the URLs of queues that were made again elsewhere
	batchLimit int               // bytes of a request to send
	// refuse, where set, answers the entry of a batch with an error code.
	refuse func(action, body string) string
	// fail, where set, answers a whole request.
	fail func(action string) error
}

type fakeQueue struct {
	name     string
	fifo     bool
	attrs    map[string]string
	messages []*fakeMessage
	dedup    map[string]fakeDedup
}

type fakeDedup struct {
	id string
	at time.Time
}

type fakeMessage struct {
	id, body, group, dedup string
	attrs                  map[string]types.MessageAttributeValue
	sent, visible, first   time.Time
	receives               int
	handles                []string
	source                 string // ARN of the queue that the redrive policy took it from
}

func newFakeSQS() *fakeSQS {
	return &fakeSQS{batchLimit: 1 << 20, changed: make(chan struct{}), queues: make(map[string]*fakeQueue), calls: make(map[string]int)}
}

const fakeARN = "arn:aws:sqs:us-east-1:000000000000:"

// create makes a queue with the default attributes and those given.
func (f *fakeSQS) create(name string, attrs map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]string{
		"VisibilityTimeout": "30", "MaximumMessageSize": "1048576", "MessageRetentionPeriod": "345600",
		"ReceiveMessageWaitTimeSeconds": "0", "DelaySeconds": "0", "QueueArn": fakeARN + name,
	}
	maps.Copy(all, attrs)
	f.queues[name] = &fakeQueue{name: name, fifo: strings.HasSuffix(name, ".fifo"), attrs: all, dedup: make(map[string]fakeDedup)}
}

func fakeRedrive(target string, receives int) map[string]string {
	return map[string]string{"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"%d"}`, fakeARN+target, receives)}
}

func (f *fakeSQS) begin(action string, url *string) (*fakeQueue, error) {
	f.mu.Lock()
	f.calls[action]++
	if f.fail != nil {
		if err := f.fail(action); err != nil {
			f.mu.Unlock()
			return nil, err
		}
	}
	name := strings.TrimPrefix(aws.ToString(url), "fake://")
	if at := f.moved[name]; at != "" && action != "GetQueueUrl" {
		name = "" // the old URL
	}
	name = strings.TrimPrefix(name, "moved/")
	q := f.queues[name]
	if q == nil {
		f.mu.Unlock()
		return nil, &types.QueueDoesNotExist{}
	}
	return q, nil // locked
}

// remove deletes a queue.
func (f *fakeSQS) remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.queues, name)
}

// move makes a queue that was removed again, under another URL.
func (f *fakeSQS) move(name string) {
	f.create(name, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved = map[string]string{name: "fake://moved/" + name}
}

func (f *fakeSQS) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeSQS) count(action string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[action]
}

// depth returns the bodies that a queue holds, in order.
func (f *fakeSQS) depth(name string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, m := range f.queues[name].messages {
		out = append(out, m.body)
	}
	return out
}

func (f *fakeSQS) GetQueueUrl(_ context.Context, in *sqs.GetQueueUrlInput, _ ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) {
	if _, err := f.begin("GetQueueUrl", in.QueueName); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	url := "fake://" + *in.QueueName
	if at := f.moved[*in.QueueName]; at != "" {
		url = at
	}
	return &sqs.GetQueueUrlOutput{QueueUrl: aws.String(url)}, nil
}

func (f *fakeSQS) GetQueueAttributes(_ context.Context, in *sqs.GetQueueAttributesInput, _ ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	q, err := f.begin("GetQueueAttributes", in.QueueUrl)
	if err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	attrs := maps.Clone(q.attrs)
	var ready, requests, delayed int
	for _, m := range q.messages {
		switch {
		case !m.visible.After(time.Now()):
			ready++
		case m.receives > 0:
			requests++
		default:
			delayed++
		}
	}
	attrs["ApproximateNumberOfMessages"] = strconv.Itoa(ready)
	attrs["ApproximateNumberOfMessagesNotVisible"] = strconv.Itoa(requests)
	attrs["ApproximateNumberOfMessagesDelayed"] = strconv.Itoa(delayed)
	return &sqs.GetQueueAttributesOutput{Attributes: attrs}, nil
}

func failed(id *string, code, text string) types.BatchResultErrorEntry {
	return types.BatchResultErrorEntry{Id: id, Code: aws.String(code), Message: aws.String(text), SenderFault: true}
}

func (f *fakeSQS) refused(action, body string) string {
	if f.refuse == nil {
		return ""
	}
	return f.refuse(action, body)
}

func (f *fakeSQS) SendMessageBatch(_ context.Context, in *sqs.SendMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	q, err := f.begin("SendMessageBatch", in.QueueUrl)
	if err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	total := 0
	for _, e := range in.Entries {
		total += len(*e.MessageBody) + attributesSize(e.MessageAttributes)
	}
	switch {
	case len(in.Entries) == 0 || len(in.Entries) > 10:
		return nil, &types.TooManyEntriesInBatchRequest{}
	case total > f.batchLimit:
		return nil, &types.BatchRequestTooLong{}
	}
	limit, _ := strconv.Atoi(q.attrs["MaximumMessageSize"])
	out := &sqs.SendMessageBatchOutput{}
	now := time.Now()
	for _, e := range in.Entries {
		code := f.refused("SendMessageBatch", *e.MessageBody)
		switch size := len(*e.MessageBody) + attributesSize(e.MessageAttributes); {
		case code != "":
		case *e.MessageBody == "":
			code = "MissingParameter"
		case !validText([]byte(*e.MessageBody)):
			code = "InvalidMessageContents"
		case len(e.MessageAttributes) > 10, size > limit, e.DelaySeconds > 900,
			q.fifo && (aws.ToString(e.MessageGroupId) == "" || aws.ToString(e.MessageDeduplicationId) == "" || e.DelaySeconds != 0),
			len(aws.ToString(e.MessageGroupId)) > 128, len(aws.ToString(e.MessageDeduplicationId)) > 128:
			code = "InvalidParameterValue"
		}
		for name, v := range e.MessageAttributes {
			if !driverName(name) && !nativeName(name) || aws.ToString(v.StringValue) == "" && len(v.BinaryValue) == 0 || !validText([]byte(aws.ToString(v.StringValue))) {
				code = "InvalidParameterValue"
			}
		}
		if code != "" {
			out.Failed = append(out.Failed, failed(e.Id, code, "refused"))
			continue
		}
		if d, ok := q.dedup[aws.ToString(e.MessageDeduplicationId)]; q.fifo && ok && now.Sub(d.at) < 5*time.Minute {
			out.Successful = append(out.Successful, types.SendMessageBatchResultEntry{Id: e.Id, MessageId: aws.String(d.id)})
			continue
		}
		f.serial++
		m := &fakeMessage{
			id: fmt.Sprintf("m-%d", f.serial), body: *e.MessageBody, group: aws.ToString(e.MessageGroupId), dedup: aws.ToString(e.MessageDeduplicationId),
			attrs: maps.Clone(e.MessageAttributes), sent: now, visible: now.Add(time.Duration(e.DelaySeconds) * time.Second),
		}
		q.dedup[m.dedup] = fakeDedup{m.id, now}
		q.messages = append(q.messages, m)
		out.Successful = append(out.Successful, types.SendMessageBatchResultEntry{Id: e.Id, MessageId: aws.String(m.id)})
	}
	f.wake()
	return out, nil
}

func (f *fakeSQS) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, _ ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	q, err := f.begin("ReceiveMessage", in.QueueUrl)
	if err != nil {
		return nil, err
	}
	f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answer := make(chan *sqs.ReceiveMessageOutput, 1)
	f.polls.Go(func() { answer <- f.receive(q, in) }) // goes on when the caller has gone
	select {
	case out := <-answer:
		return out, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fakeSQS) receive(q *fakeQueue, in *sqs.ReceiveMessageInput) *sqs.ReceiveMessageOutput {
	wait := int(in.WaitTimeSeconds)
	if wait == 0 {
		// The SDK leaves a zero out, and SQS takes the queue's own wait then.
		f.mu.Lock()
		wait, _ = strconv.Atoi(q.attrs["ReceiveMessageWaitTimeSeconds"])
		f.mu.Unlock()
	}
	deadline := time.Now().Add(time.Duration(wait) * time.Second)
	for {
		f.mu.Lock()
		now := time.Now()
		picked, next := f.pick(q, int(in.MaxNumberOfMessages), time.Duration(in.VisibilityTimeout)*time.Second, now)
		changed := f.changed
		f.mu.Unlock()
		if len(picked) > 0 || !now.Before(deadline) {
			return &sqs.ReceiveMessageOutput{Messages: picked}
		}
		if next.IsZero() || deadline.Before(next) {
			next = deadline
		}
		select {
		case <-changed:
		case <-time.After(next.Sub(now)):
		}
	}
}

// pick takes up to n messages, and says when the next becomes visible.
func (f *fakeSQS) pick(q *fakeQueue, n int, lock time.Duration, now time.Time) (out []types.Message, next time.Time) {
	var policy redrivePolicy
	_ = json.Unmarshal([]byte(q.attrs["RedrivePolicy"]), &policy)
	limit, _ := policy.Count.Int64()
	blocked := make(map[string]bool)
	var order []*fakeMessage
	groups := make(map[string][]*fakeMessage)
	var keys []string
	for _, m := range slices.Clone(q.messages) {
		if m.visible.After(now) {
			if next.IsZero() || m.visible.Before(next) {
				next = m.visible
			}
			if q.fifo {
				blocked[m.group] = true
			}
			continue
		}
		if limit > 0 && m.receives >= int(limit) && !blocked[m.group] {
			f.redrive(q, m, policy.Target)
			continue
		}
		if !q.fifo {
			order = append(order, m)
			continue
		}
		if groups[m.group] == nil {
			keys = append(keys, m.group)
		}
		groups[m.group] = append(groups[m.group], m)
	}
	for _, k := range keys {
		if !blocked[k] {
			order = append(order, groups[k]...)
		}
	}
	for _, m := range order[:min(n, len(order))] {
		f.serial++
		m.receives++
		m.visible, m.first = now.Add(lock), now
		m.handles = append(m.handles, fmt.Sprintf("h-%d", f.serial))
		sys := map[string]string{"ApproximateReceiveCount": strconv.Itoa(m.receives), "SentTimestamp": strconv.FormatInt(m.sent.UnixMilli(), 10)}
		if q.fifo {
			sys["MessageGroupId"], sys["MessageDeduplicationId"] = m.group, m.dedup
		}
		if m.source != "" {
			sys["DeadLetterQueueSourceArn"] = m.source
		}
		out = append(out, types.Message{
			MessageId: aws.String(m.id), Body: aws.String(m.body), ReceiptHandle: aws.String(m.handles[len(m.handles)-1]),
			MessageAttributes: maps.Clone(m.attrs), Attributes: sys,
		})
	}
	return out, next
}

func (f *fakeSQS) redrive(q *fakeQueue, m *fakeMessage, target string) {
	t := f.queues[strings.TrimPrefix(target, fakeARN)]
	if t == nil {
		return
	}
	q.messages = slices.DeleteFunc(q.messages, func(x *fakeMessage) bool { return x == m })
	m.receives, m.source = 0, fakeARN+q.name
	t.messages = append(t.messages, m)
}

func (q *fakeQueue) find(handle *string) (m *fakeMessage, newest bool) {
	for _, m := range q.messages {
		if i := slices.Index(m.handles, aws.ToString(handle)); i >= 0 {
			return m, i == len(m.handles)-1
		}
	}
	return nil, false
}

const expiredHandle = "Value h for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired."

func (f *fakeSQS) DeleteMessageBatch(_ context.Context, in *sqs.DeleteMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error) {
	q, err := f.begin("DeleteMessageBatch", in.QueueUrl)
	if err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	out := &sqs.DeleteMessageBatchOutput{}
	for _, e := range in.Entries {
		m, newest := q.find(e.ReceiptHandle)
		switch {
		case m == nil: // deleted before: not an error
		case f.refused("DeleteMessageBatch", m.body) != "":
			out.Failed = append(out.Failed, failed(e.Id, f.refused("DeleteMessageBatch", m.body), "refused"))
			continue
		case q.fifo && (!newest || !m.visible.After(time.Now())):
			out.Failed = append(out.Failed, failed(e.Id, "InvalidParameterValue", expiredHandle))
			continue
		default:
			q.messages = slices.DeleteFunc(q.messages, func(x *fakeMessage) bool { return x == m })
		}
		out.Successful = append(out.Successful, types.DeleteMessageBatchResultEntry{Id: e.Id})
	}
	f.wake()
	return out, nil
}

func (f *fakeSQS) ChangeMessageVisibilityBatch(_ context.Context, in *sqs.ChangeMessageVisibilityBatchInput, _ ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
	q, err := f.begin("ChangeMessageVisibilityBatch", in.QueueUrl)
	if err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	out := &sqs.ChangeMessageVisibilityBatchOutput{}
	now := time.Now()
	for _, e := range in.Entries {
		m, newest := q.find(e.ReceiptHandle)
		to := time.Duration(e.VisibilityTimeout) * time.Second
		switch {
		case m == nil:
			out.Failed = append(out.Failed, failed(e.Id, "ReceiptHandleIsInvalid", "The input receipt handle is invalid."))
			continue
		case f.refused("ChangeMessageVisibilityBatch", m.body) != "":
			out.Failed = append(out.Failed, failed(e.Id, f.refused("ChangeMessageVisibilityBatch", m.body), "refused"))
			continue
		case !m.visible.After(now), q.fifo && !newest:
			out.Failed = append(out.Failed, failed(e.Id, "MessageNotInflight", "not in flight"))
			continue
		case now.Add(to).Sub(m.first) > 12*time.Hour:
			out.Failed = append(out.Failed, failed(e.Id, "InvalidParameterValue", "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]"))
			continue
		}
		m.visible = now.Add(to)
		out.Successful = append(out.Successful, types.ChangeMessageVisibilityBatchResultEntry{Id: e.Id})
	}
	f.wake()
	return out, nil
}
