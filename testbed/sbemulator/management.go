package sbemulator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// answer is what $cbs or $management says to a request. The status codes are
// the codes of HTTP; 410 means that a lock is lost.
type answer struct {
	status      int32
	condition   wire.Symbol
	description string
	body        any
}

// request is a request to $management of one queue.
type request struct {
	c        *connection
	q        *queue
	linkName string // the client's link in whose name it is made; may be empty
	body     wire.Map
}

// operations are the operations of $management, all of whose names start with
// com.microsoft:.
var operations = map[string]func(*request) answer{
	"renew-lock":                 (*request).renewLock,
	"update-disposition":         (*request).updateDisposition,
	"peek-message":               (*request).peekMessage,
	"receive-by-sequence-number": (*request).receiveBySequenceNumber,
	"schedule-message":           (*request).scheduleMessage,
	"cancel-scheduled-message":   (*request).cancelScheduledMessage,
	"renew-session-lock":         (*request).renewSessionLock,
	"get-session-state":          (*request).getSessionState,
	"set-session-state":          (*request).setSessionState,
	"get-message-sessions":       (*request).getMessageSessions,
}

func badRequest(why string) answer {
	return answer{status: 400, condition: condInvalidField, description: why}
}

func success(body wire.Map) answer {
	a := answer{status: 200, description: "OK"}
	if body != nil {
		a.body = body
	}
	return a
}

var noContent = answer{status: 204, description: "No content"}

// take hands a complete message to what is at our end of the link.
func (l *link) take(raw []byte, format uint32, f *Fault) wire.State {
	l.touch()
	if l.addr.entity() {
		if f.refuses() {
			return wire.Rejected{Error: f.err()}
		}
		return l.q.receive(raw, format)
	}
	m, err := wire.ParseMessage(raw)
	if err != nil {
		return wire.Rejected{Error: &wire.Error{Condition: condDecode, Description: err.Error()}}
	}
	to := l.replyLink(m.Properties.ReplyTo)
	if to == nil {
		e := l.noReplyLink(m.Properties.ReplyTo)
		l.detach(e)
		return wire.Rejected{Error: e}
	}
	var a answer
	switch {
	case f.refuses():
		a = answer{status: int32(f.Status), condition: wire.Symbol(f.Condition), description: f.Description}
	case l.addr.cbs:
		a = l.ss.c.putToken(m)
	default:
		a = l.manage(m)
	}
	l.answer(to, m, a)
	return wire.Accepted{}
}

// manage answers a request to $management.
func (l *link) manage(m *wire.Message) answer {
	name, _ := m.Application.String("operation")
	name, ours := strings.CutPrefix(name, "com.microsoft:")
	op := operations[name]
	if !ours || op == nil {
		return answer{status: 501, condition: condNotImplemented, description: "The operation is unknown."}
	}
	v, _ := m.Value()
	body, isMap := v.(wire.Map)
	if !isMap {
		return badRequest("The body is no map.")
	}
	r := &request{c: l.ss.c, q: l.q, body: body}
	if r.linkName, _ = m.Application.String("associated-link-name"); r.linkName != "" {
		if other := l.ss.c.linkNamed(r.linkName); other != nil {
			other.touch()
		}
	}
	return op(r)
}

// linkNamed returns the client's link to a queue of that name, nil for none.
func (c *connection) linkNamed(name string) *link {
	for _, ss := range c.sessions {
		for _, l := range ss.links {
			if l.name == name && !l.gone && l.addr.entity() {
				return l
			}
		}
	}
	return nil
}

// answer sends a, the answer to m, over the link to.
func (l *link) answer(to *link, m *wire.Message, a answer) {
	code, text := "statusCode", "statusDescription"
	if l.addr.cbs {
		code, text = "status-code", "status-description"
	}
	app := wire.Map{{Key: code, Value: a.status}, {Key: text, Value: a.description}}
	if a.condition != "" {
		app = append(app, wire.Pair{Key: "errorCondition", Value: a.condition})
	}
	out := &wire.Message{Header: wire.Header{Priority: 4}}
	out.SetProperties(wire.Properties{CorrelationID: m.Properties.MessageID, To: m.Properties.ReplyTo})
	out.SetApplication(app)
	out.SetValue(a.body)
	to.reply(out.Append(nil))
}

// replyLink returns the client's receiver at the same node to which replyTo
// routes an answer; nil if there is none. A target address goes before the name of
// a link: Microsoft's JavaScript client gives its receiver no target address and
// names the link. Without replyTo it is any receiver of the same session.
func (l *link) replyLink(replyTo *string) *link {
	var named *link
	for _, ss := range l.ss.c.sessions {
		if replyTo == nil && ss != l.ss {
			continue
		}
		for _, x := range ss.links {
			if x.out == nil || x.gone || x.addr.entity() || x.addr.cbs != l.addr.cbs || x.q != l.q {
				continue
			}
			if replyTo == nil || x.out.replyTo == *replyTo {
				return x
			}
			if x.out.replyTo == "" && x.name == *replyTo {
				named = x
			}
		}
	}
	return named
}

// noReplyLink is the error of a request whose answer no receiver would take. The
// request is not carried out.
func (l *link) noReplyLink(replyTo *string) *wire.Error {
	want := "a request without reply-to needs a receiver at the same node in its session"
	if replyTo != nil {
		want = fmt.Sprintf("reply-to %.64q is neither the target address nor the name of a receiver at the same node", *replyTo)
	}
	return &wire.Error{Condition: condNotFound, Description: "The answer cannot be routed: " + want + "."}
}

// numbers reads a field that holds sequence numbers.
func (r *request) numbers(field string) ([]int64, bool) {
	v, _ := r.body.Get(field)
	items, ok := wire.Items(v)
	if !ok || len(items) == 0 {
		return nil, false
	}
	out := make([]int64, 0, len(items))
	for _, v := range items {
		n, ok := wire.Int(v)
		if !ok {
			return nil, false
		}
		out = append(out, n)
	}
	return out, true
}

// tokens reads a field that holds lock tokens.
func (r *request) tokens() ([]wire.UUID, bool) {
	v, _ := r.body.Get("lock-tokens")
	items, ok := wire.Items(v)
	if !ok || len(items) == 0 {
		return nil, false
	}
	out := make([]wire.UUID, 0, len(items))
	for _, v := range items {
		u, ok := v.(wire.UUID)
		if !ok {
			return nil, false
		}
		out = append(out, u)
	}
	return out, true
}

// integer reads a field of any integer type.
func (r *request) integer(field string) (int64, bool) {
	v, _ := r.body.Get(field)
	return wire.Int(v)
}

// peekMessage returns messages of any state from a number on.
func (r *request) peekMessage() answer {
	from, ok1 := r.integer("from-sequence-number")
	count, ok2 := r.integer("message-count")
	if !ok1 || !ok2 || count < 1 {
		return badRequest("from-sequence-number or message-count is missing.")
	}
	session, bySession := r.body.String("session-id")
	i, _ := slices.BinarySearchFunc(r.q.order, from, bySequence)
	var list wire.List
	size := 0
	for _, m := range r.q.order[i:] {
		if m.q != r.q {
			continue
		}
		if g := m.msg.Properties.GroupID; bySession && (g == nil || *g != session) {
			continue
		}
		raw := m.encode(nil)
		if size += len(raw); len(list) > 0 && size > peekBytes {
			break
		}
		list = append(list, wire.Map{{Key: "message", Value: raw}})
		if int64(len(list)) == min(count, peekCount) {
			break
		}
	}
	if len(list) == 0 {
		return noContent
	}
	return success(wire.Map{{Key: "messages", Value: list}})
}

// The limits of one peek: it may return fewer than were asked for.
const (
	peekCount = 250
	peekBytes = 256 << 10
)

// scheduleMessage stores messages that each say when they become active.
func (r *request) scheduleMessage() answer {
	v, _ := r.body.Get("messages")
	items, isList := wire.Items(v)
	if !isList || len(items) == 0 {
		return badRequest("messages is missing.")
	}
	var batch []*wire.Message
	for _, v := range items {
		entry, _ := v.(wire.Map)
		v, _ := entry.Get("message")
		raw, isBinary := v.([]byte)
		if !isBinary {
			return badRequest("A message is no binary.")
		}
		if len(raw) > r.q.opts.MaxMessageSize {
			return answer{status: 413, condition: condMessageSize, description: "The message is too large."}
		}
		m, err := wire.ParseMessage(raw)
		if err != nil {
			return badRequest("A message cannot be decoded.")
		}
		batch = append(batch, m)
	}
	if r.q.source != nil {
		return answer{status: 403, condition: condNotAllowed, description: "Messages cannot be sent to dead letters."}
	}
	if e := r.q.check(batch); e != nil {
		return answer{status: 403, condition: e.Condition, description: e.Description}
	}
	for _, m := range batch {
		if _, ok := scheduledTime(m); !ok {
			return badRequest("A message has no " + annotationSchedule + ".")
		}
	}
	now := r.q.s.clock.now()
	numbers := wire.Array{Code: 0x81}
	for _, m := range batch {
		numbers.Elems = append(numbers.Elems, r.q.scheduleMessage(m, now))
	}
	return success(wire.Map{{Key: "sequence-numbers", Value: numbers}})
}

func (r *request) cancelScheduledMessage() answer {
	numbers, isList := r.numbers("sequence-numbers")
	if !isList {
		return badRequest("sequence-numbers is missing.")
	}
	if !r.q.cancelScheduled(numbers) {
		return answer{status: 404, condition: condMessageNotFound, description: "A message with one of the sequence numbers was not found."}
	}
	return success(nil)
}
