package sbemulator_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

const key = "c2VjcmV0LWtleQ=="

func TestKey(t *testing.T) {
	s := start(t, &sbemulator.Options{Key: key}, nil)
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	if err := r.DeadLetterMessage(within(t), one(t, r), nil); err != nil {
		t.Fatal(err)
	}
	one(t, receiver(t, c, "q", deadLetters))

	wrong := strings.Replace(s.ConnectionString(), key, "b3RoZXItdGhhbi1pdA==", 1)
	c, err := azservicebus.NewClientFromConnectionString(wrong, &azservicebus.ClientOptions{RetryOptions: quick})
	if err != nil {
		t.Fatal(err)
	}
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	wantCode(t, sender.SendMessage(within(t), text("x"), nil), azservicebus.CodeUnauthorizedAccess)
	_ = c.Close(briefly(t))
}

// TestClaimNeeded attaches without a claim, and with the key as a password.
func TestClaimNeeded(t *testing.T) {
	for _, c := range []struct {
		name string
		sasl amqp.SASLType
		dial bool
		ok   bool
	}{
		{"anonymous", amqp.SASLTypeAnonymous(), true, false},
		{"password", amqp.SASLTypePlain("emulator", key), true, true},
		{"wrong password", amqp.SASLTypePlain("emulator", "x"), false, false},
		{"no sasl", nil, true, false},
		{"unknown mechanism", amqp.SASLTypeExternal(""), false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, &sbemulator.Options{Key: key}, nil)
			conn, err := amqp.Dial(within(t), "amqp://"+s.Addr().String(), &amqp.ConnOptions{SASLType: c.sasl})
			if (err == nil) != c.dial {
				t.Fatalf("dial: %v", err)
			}
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			session := must[*amqp.Session](t)(conn.NewSession(within(t), nil))
			sender, err := session.NewSender(within(t), "q", nil)
			if !c.ok {
				wantCondition(t, err, "amqp:unauthorized-access")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := sender.Send(within(t), amqp.NewMessage([]byte("x")), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestClaims puts tokens by hand.
func TestClaims(t *testing.T) {
	s := start(t, nil, nil)
	conn := must[*amqp.Conn](t)(amqp.Dial(within(t), "amqp://"+s.Addr().String(), &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()}))
	defer func() { _ = conn.Close() }()
	session := must[*amqp.Session](t)(conn.NewSession(within(t), nil))
	ask := asker(t, session, "$cbs")
	for _, c := range []struct {
		operation, name string
		status          int32
	}{
		{"put-token", "amqp://host/q", 200},
		{"put-token", "sb://host/Q/$DeadLetterQueue/$management", 200},
		{"put-token", "q/$management", 200},
		{"put-token", "amqp://host/none", 404},
		{"put-token", "amqp://host/", 400},
		{"delete-token", "amqp://host/q", 400},
	} {
		m := &amqp.Message{Value: "token", ApplicationProperties: map[string]any{"operation": c.operation, "name": c.name}}
		if got := ask(m).ApplicationProperties["status-code"]; got != c.status {
			t.Errorf("%s of %s: %v, want %d", c.operation, c.name, got, c.status)
		}
	}
}

// asker returns a function that sends a request to a node and returns the
// answer.
func asker(t *testing.T, session *amqp.Session, node string) func(*amqp.Message) *amqp.Message {
	t.Helper()
	out := must[*amqp.Sender](t)(session.NewSender(within(t), node, nil))
	in := must[*amqp.Receiver](t)(session.NewReceiver(within(t), node, &amqp.ReceiverOptions{TargetAddress: "answers", Credit: 10}))
	id := uint64(0)
	return func(m *amqp.Message) *amqp.Message {
		t.Helper()
		id++
		to := "answers"
		m.Properties = &amqp.MessageProperties{MessageID: id, ReplyTo: &to}
		if err := out.Send(within(t), m, nil); err != nil {
			t.Fatal(err)
		}
		a := must[*amqp.Message](t)(in.Receive(within(t), nil))
		if a.Properties == nil || a.Properties.CorrelationID != id {
			t.Fatalf("answer to another request: %+v", a.Properties)
		}
		if err := in.AcceptMessage(within(t), a); err != nil {
			t.Error(err)
		}
		return a
	}
}

// TestTokens signs tokens by hand: only one that is the key's, not over and for the
// entity is taken.
func TestTokens(t *testing.T) {
	s := start(t, &sbemulator.Options{Key: key}, nil)
	if err := s.CreateQueue("q2", nil); err != nil {
		t.Fatal(err)
	}
	conn := must[*amqp.Conn](t)(amqp.Dial(within(t), "amqp://"+s.Addr().String(), &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()}))
	defer func() { _ = conn.Close() }()
	session := must[*amqp.Session](t)(conn.NewSession(within(t), nil))
	ask := asker(t, session, "$cbs")
	token := func(resource, key string, left time.Duration) string {
		sr, se := url.QueryEscape(resource), fmt.Sprint(time.Now().Add(left).Unix())
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(sr + "\n" + se))
		return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + se + "&skn=n"
	}
	good := token("amqp://host/q", key, time.Hour)
	for name, c := range map[string]struct {
		token, audience string
		status          int32
	}{
		"good":               {good, "amqp://host/q", 200},
		"below":              {good, "amqp://host/q/$management", 200},
		"the namespace's":    {token("amqp://host/", key, time.Hour), "amqp://host/q2", 200},
		"another queue's":    {good, "amqp://host/q2", 401},
		"above":              {token("amqp://host/q/$management", key, time.Hour), "amqp://host/q", 401},
		"over":               {token("amqp://host/q", key, -time.Second), "amqp://host/q", 401},
		"another key's":      {token("amqp://host/q", "another-key-of-many-bytes", time.Hour), "amqp://host/q", 401},
		"longer than signed": {strings.Replace(good, "&se=1", "&se=2", 1), "amqp://host/q", 401},
		"no token":           {"", "amqp://host/q", 401},
		"another kind":       {"Bearer x", "amqp://host/q", 401},
	} {
		m := &amqp.Message{Value: c.token, ApplicationProperties: map[string]any{"operation": "put-token", "name": c.audience}}
		if got := ask(m).ApplicationProperties["status-code"]; got != c.status {
			t.Errorf("%s: %v, want %d", name, got, c.status)
		}
	}
}

// TestReplyByLinkName asks at $cbs and $management as Microsoft's JavaScript client
// does: its receiver has no target address, and reply-to is the receiver's name.
func TestReplyByLinkName(t *testing.T) {
	s := start(t, nil, nil)
	for node, code := range map[string]string{"$cbs": "status-code", "q/$management": "statusCode"} {
		t.Run(node, func(t *testing.T) {
			p := open(t, s, 64<<10, 100)
			for h, receiver := range []bool{false, true, true} {
				a := &wire.Attach{Name: "link" + number(h), Handle: uint32(h), Receiver: receiver, Source: &wire.Source{},
					Target: &wire.Target{}, InitialDeliveryCount: new(uint32)}
				if a.Receiver {
					a.Source.Address = node
				} else {
					a.Target.Address = node
				}
				p.send(0, a)
				if receiver {
					p.credit(uint32(h), 5)
				}
				expect[*wire.Attach](p)
			}
			for i, h := range []uint32{2, 1} {
				p.request(uint32(i), new("link"+number(int(h))))
				tr, payload := p.reply()
				m, err := wire.ParseMessage(payload)
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := m.Application.Get(code); tr.Handle != h || !ok {
					t.Errorf("handle %d, %v; want handle %d", tr.Handle, m.Application, h)
				}
			}
		})
	}
}

// request sends a request over handle 0.
func (p *peer) request(id uint32, replyTo *string) {
	p.t.Helper()
	m := &wire.Message{}
	m.SetProperties(wire.Properties{MessageID: "1", ReplyTo: replyTo})
	m.SetApplication(wire.Map{{Key: "operation", Value: "put-token"}, {Key: "name", Value: "q"}})
	m.SetValue(nil)
	p.send(0, &wire.Transfer{DeliveryID: &id}, m.Append(nil)...)
}

// reply reads up to the next transfer. Flows and dispositions are passed over.
func (p *peer) reply() (*wire.Transfer, []byte) {
	p.t.Helper()
	for {
		switch perf, payload := p.read(); perf := perf.(type) {
		case *wire.Transfer:
			return perf, payload
		case *wire.Flow, *wire.Disposition:
		default:
			p.t.Fatalf("%T %+v, want a transfer", perf, perf)
		}
	}
}

// TestNoReplyLink: a request whose answer no receiver takes ends its link.
func TestNoReplyLink(t *testing.T) {
	s := start(t, nil, nil)
	for name, replyTo := range map[string]*string{"unknown": new("nowhere"), "none": nil} {
		for _, node := range []string{"$cbs", "q/$management"} {
			t.Run(name+" at "+node, func(t *testing.T) {
				p := open(t, s, 64<<10, 100)
				p.send(0, &wire.Attach{Name: "l", Source: &wire.Source{}, Target: &wire.Target{Address: node}, InitialDeliveryCount: new(uint32)})
				expect[*wire.Attach](p)
				p.request(0, replyTo)
				if d := expect[*wire.Detach](p); d.Error == nil || d.Error.Condition != "amqp:not-found" || !strings.Contains(d.Error.Description, "cannot be routed") {
					t.Errorf("detach %v", d.Error)
				}
			})
		}
	}
}

// TestUnreadAnswers: a client that asks and never reads is told, not left waiting.
func TestUnreadAnswers(t *testing.T) {
	s := start(t, nil, nil)
	p := open(t, s, 64<<10, 100)
	p.send(0, &wire.Attach{Name: "in", Handle: 1, Receiver: true, Source: &wire.Source{Address: "$cbs"}, Target: &wire.Target{Address: "answers"}})
	expect[*wire.Attach](p)
	p.send(0, &wire.Attach{Name: "out", Source: &wire.Source{}, Target: &wire.Target{Address: "$cbs"}, InitialDeliveryCount: new(uint32)})
	expect[*wire.Attach](p)
	for i := range uint32(1001) {
		p.request(i, new("answers"))
	}
	for {
		perf, _ := p.read()
		if d, ok := perf.(*wire.Detach); ok {
			if d.Handle != 1 || d.Error == nil || d.Error.Condition != "amqp:resource-limit-exceeded" {
				t.Errorf("detach of %d: %v", d.Handle, d.Error)
			}
			return
		}
	}
}

// TestQueueNotFoundText: clients know a missing queue by the text of the error.
func TestQueueNotFoundText(t *testing.T) {
	s := start(t, nil, nil)
	for _, receiver := range []bool{false, true} {
		for _, path := range []string{"none", "none/$management", "none/$DeadLetterQueue"} {
			p := open(t, s, 64<<10, 100)
			p.send(0, &wire.Attach{Name: "l", Receiver: receiver, Source: &wire.Source{Address: path}, Target: &wire.Target{Address: path}})
			expect[*wire.Attach](p)
			wantNotFound(t, expect[*wire.Detach](p).Error, "/"+strings.TrimSuffix(path, "/$management"))
		}
	}
	p := open(t, s, 64<<10, 100)
	p.attach(0, true)
	if err := s.DeleteQueue("q"); err != nil {
		t.Fatal(err)
	}
	wantNotFound(t, expect[*wire.Detach](p).Error, "/q")
}

func wantNotFound(t *testing.T, e *wire.Error, path string) {
	t.Helper()
	if e == nil || e.Condition != "amqp:not-found" || !strings.HasPrefix(e.Description, "The messaging entity 'sb://") ||
		!strings.HasSuffix(e.Description, path+"' could not be found.") {
		t.Errorf("error %v for %s", e, path)
	}
}
