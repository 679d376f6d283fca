package smkeys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/queue-runtime/queue/keys"
)

// A secret can hold a sender key. One ID names one key: neither another sender's nor a
// master key of the same bytes takes its place.
func TestSenderKey(t *testing.T) {
	text := base64.StdEncoding.EncodeToString(secretOf(9))
	s := newServer()
	s.put("k", "1", "a", stageCurrent)
	s.put("k/a", "1", fmt.Sprintf(`{"id":"a","sender":"router","sender_secret":%q,"queues":["orders"]}`, text), stageCurrent)
	p := s.provider(t, "k", nil)
	k, err := p.GetKey(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if k.SenderID() != "router" || !slices.Equal(k.Queues(), []string{"orders"}) {
		t.Errorf("sender %q, queues %q", k.SenderID(), k.Queues())
	}
	if _, err := k.Derive("", nil); !errors.Is(err, keys.ErrSenderKey) {
		t.Errorf("it derives for another sender: %v", err)
	}
	if want, err := keys.NewSender("a", "router", secretOf(9), nil); err != nil || !k.Equal(want) {
		t.Errorf("it is not the key of that sender and secret: %v", err)
	}
	again, err := p.GetKey(t.Context(), "a")
	if err != nil || again != k {
		t.Errorf("the second time: another Key, %v", err)
	}
	k.Confirm() // a message was sealed under it
	for name, v := range map[string]string{
		"another sender": fmt.Sprintf(`{"sender":"mailer","sender_secret":%q}`, text),
		"a master key":   fmt.Sprintf(`{"secret":%q}`, text),
	} {
		s.put("k/a", name, v, stageCurrent)
		if k, err := p.GetKey(t.Context(), "a"); k != nil || !errors.Is(err, keys.ErrInvalidKey) {
			t.Errorf("%s of the same bytes under the ID: %v, %v", name, k, err)
		}
	}
	s.put("k/a", "queues", fmt.Sprintf(`{"sender":"router","sender_secret":%q,"queues":["ledger"]}`, text), stageCurrent)
	if k, err := p.GetKey(t.Context(), "a"); err != nil || k.For("orders") || !k.For("ledger") {
		t.Errorf("other queues are not taken up: %v, %v", k, err)
	}
}
