package sqsqueue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

// maxGroup bounds MessageGroupId and MessageDeduplicationId (API Reference,
// SendMessage).
const maxGroup = 128

// outgoing is one message on its way into a request.
type outgoing struct {
	index int // into the results
	entry types.SendMessageBatchRequestEntry
	size  int
}

// Send implements driver.Queue: as few SendMessageBatch requests as count and
// size allow, with the outcome of each entry.
func (q *queue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	results := make([]driver.SendResult, len(m))
	if err := q.check(ctx); err != nil {
		fail(results, err)
		return results
	}
	if q.deadLetters {
		fail(results, driver.Unsupported("sending to a dead-letter queue"))
		return results
	}
	var batch []outgoing
	bytes := 0
	for i, m := range m {
		entry, size, err := q.entry(m)
		if err != nil {
			results[i].Err = err
			continue
		}
		if len(batch) == maxEntries || len(batch) > 0 && bytes+size > q.batchLimit {
			q.sendBatch(ctx, batch, results)
			batch, bytes = batch[:0], 0
		}
		batch = append(batch, outgoing{index: i, entry: entry, size: size})
		bytes += size
	}
	if len(batch) > 0 {
		q.sendBatch(ctx, batch, results)
	}
	return results
}

func fail(results []driver.SendResult, err error) {
	for i := range results {
		results[i].Err = err
	}
}

func (q *queue) sendBatch(ctx context.Context, batch []outgoing, results []driver.SendResult) {
	entries := make([]types.SendMessageBatchRequestEntry, len(batch))
	for i, o := range batch {
		entries[i] = o.entry
	}
	ids, errs := q.send(ctx, q.url, entries)
	for i, o := range batch {
		results[o.index] = driver.SendResult{BrokerID: ids[i], Err: errs[i]}
	}
}

// send makes one request and returns the broker's ID or the error of each entry. It
// sends halves if the service takes fewer bytes at once than it should.
func (q *queue) send(ctx context.Context, url string, entries []types.SendMessageBatchRequestEntry) (ids []string, errs []error) {
	const op = "SendMessageBatch"
	for i := range entries {
		entries[i].Id = aws.String(itoa(i))
	}
	ids, errs = make([]string, len(entries)), unanswered(op, len(entries))
	out, err := q.broker.api.SendMessageBatch(ctx, &sqs.SendMessageBatchInput{QueueUrl: aws.String(url), Entries: entries})
	if err != nil {
		err = q.broker.classify(ctx, op, url, err)
		if half := len(entries) / 2; half > 0 && driver.KindOf(err) == driver.TooLarge {
			firstIDs, firstErrs := q.send(ctx, url, entries[:half])
			lastIDs, lastErrs := q.send(ctx, url, entries[half:])
			return slices.Concat(firstIDs, lastIDs), slices.Concat(firstErrs, lastErrs)
		}
		for i := range errs {
			errs[i] = err
		}
		return ids, errs
	}
	for _, s := range out.Successful {
		if i, ok := entryIndex(s.Id, len(entries)); ok {
			ids[i], errs[i] = aws.ToString(s.MessageId), nil
		}
	}
	entryErrors(op, out.Failed, errs)
	return ids, errs
}

// unanswered is the outcome of entries that the answer does not mention.
func unanswered(operation string, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = &driver.Error{Kind: driver.Unavailable, Err: &serviceError{operation: operation, code: "the answer does not mention this entry"}}
	}
	return errs
}

func entryErrors(operation string, failed []types.BatchResultErrorEntry, errs []error) {
	for _, f := range failed {
		if i, ok := entryIndex(f.Id, len(errs)); ok {
			errs[i] = entryError(operation, f)
		}
	}
}

func entryIndex(id *string, n int) (int, bool) {
	i, err := strconv.Atoi(aws.ToString(id))
	return i, err == nil && i >= 0 && i < n
}

// entry makes a request's entry of a message, all but its Id.
func (q *queue) entry(m *driver.Message) (types.SendMessageBatchRequestEntry, int, error) {
	var e types.SendMessageBatchRequestEntry
	if len(m.Attributes) > maxAttributes {
		return e, 0, &driver.Error{Kind: driver.TooLarge, Err: &driver.TooLargeError{
			What: "attributes", Size: len(m.Attributes), Limit: maxAttributes, Unit: "entries"}}
	}
	if err := m.CheckAttributes(); err != nil {
		return e, 0, err
	}
	if len(m.Body) > q.caps.MaxBody {
		return e, 0, driver.NewTooLarge("body", len(m.Body), q.caps.MaxBody)
	}
	if m.SessionID != "" && !q.fifo {
		return e, 0, driver.Unsupported("sessions on a standard queue")
	}
	delay, err := q.delay(m.NotBefore)
	if err != nil {
		return e, 0, err
	}
	text, encoding := encodeBody(m)
	group, session := "", ""
	if q.fifo {
		group, session = groupOf(m)
	}
	attrs, err := attributes(m, encoding, session)
	if err != nil {
		return e, 0, err
	}
	size := len(text) + attributesSize(attrs)
	if limit := q.limit - deadLetterRoom(q.limit); size > limit {
		return e, 0, driver.NewTooLarge("message", size, limit)
	}
	e = types.SendMessageBatchRequestEntry{
		MessageBody:       aws.String(text),
		MessageAttributes: attrs,
		DelaySeconds:      delay,
	}
	if q.fifo {
		dedup := m.DedupID
		if dedup == "" {
			dedup = m.ID
		}
		e.MessageGroupId = aws.String(group)
		e.MessageDeduplicationId = aws.String(token(dedup))
	}
	return e, size, nil
}

func deadLetterRoom(limit int) int { return min(deadLetterReserve, limit/8) }

// delay returns whole seconds, rounded up: never early.
func (q *queue) delay(notBefore time.Time) (int32, error) {
	if notBefore.IsZero() {
		return 0, nil
	}
	d := time.Until(notBefore)
	switch {
	case q.fifo:
		return 0, driver.Unsupported("scheduling on a FIFO queue")
	case d <= 0:
		return 0, nil
	case d > maxSendDelay:
		return 0, driver.Unsupported(fmt.Sprintf("scheduling %s ahead: SQS takes 15 minutes", d.Round(time.Second)))
	}
	return int32((d + time.Second - 1) / time.Second), nil //nolint:gosec // G115: at most 900
}

// groupOf returns the MessageGroupId of a message, and its session if that
// cannot be read off the group. Without a session the group is the message ID,
// or that and a digest of the DedupID if it is another: a group of its own, so
// that nothing waits for it.
func groupOf(m *driver.Message) (group, session string) {
	if m.SessionID == "" {
		group = token(m.ID)
		if m.DedupID != "" && m.DedupID != m.ID {
			group = ownGroup(m.ID) + digest(m.DedupID)[:16]
		}
		return group, ""
	}
	group = token(m.SessionID)
	if group != m.SessionID || withoutSession(group, m.ID) {
		session = m.SessionID
	}
	return group, session
}

// sessionOf undoes groupOf. packed is the session from the metadata.
func sessionOf(group, id, packed string) string {
	switch {
	case packed != "":
		return packed
	case withoutSession(group, id):
		return ""
	}
	return group
}

// withoutSession reports whether a group is one that groupOf makes for a message
// of that ID without a session.
func withoutSession(group, id string) bool {
	return group == token(id) || strings.HasPrefix(group, ownGroup(id))
}

func ownGroup(id string) string {
	if id = token(id); len(id) > maxGroup-17 {
		id = digest(id)
	}
	return id + "#"
}

// token returns s if SQS takes it as a group or deduplication ID, and a digest
// of it if not: letters, digits and ASCII punctuation, 1 to 128 of them.
func token(s string) string {
	ok := s != "" && len(s) <= maxGroup
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] > ' ' && s[i] < 0x7F
	}
	if ok {
		return s
	}
	return "sha256." + digest(s)
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// Size implements driver.Queue.
func (q *queue) Size(m *driver.Message) int {
	n, encoding := bodySize(m)
	session := ""
	if q.fifo {
		_, session = groupOf(m)
	}
	attrs, err := attributes(m, encoding, session)
	if err != nil {
		return n // Send refuses it
	}
	return n + attributesSize(attrs)
}

// isLost reports whether err says that a lock is over.
func isLost(err error) bool { return errors.Is(err, driver.ErrLockLost) }
