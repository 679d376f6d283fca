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
