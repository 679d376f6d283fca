package envelope

import (
	"bytes"
	"errors"
	"maps"
	"testing"
)

func TestOpenErrors(t *testing.T) {
	key := newMasterKey(1)
	body := sealTest(t, key)
	data := testData(t, &testContext, testHeader(t).Bound)
	o := NewOpener(nil)

	if _, err := o.Open(nil, mustParse(t, body), nil, data); err == nil || errors.Is(err, ErrAuthenticationFailed) {
		t.Errorf("no Deriver: %v", err)
	}
	for range 2 { // the second time with a warm cache
		if _, err := o.Open(nil, mustParse(t, body), newMasterKey(2), data); err != ErrAuthenticationFailed { // the bare sentinel: opaque
			t.Errorf("wrong key: %v", err)
		}
		if _, err := o.Open(nil, mustParse(t, body), key, data[1:]); err != ErrAuthenticationFailed {
			t.Errorf("wrong context: %v", err)
		}
		if _, err := o.Open(nil, mustParse(t, body), key, nil); err != ErrAuthenticationFailed {
			t.Errorf("no context: %v", err)
		}
		cause := errors.New("module unplugged")
		if _, err := o.Open(nil, mustParse(t, body), &failing{cause}, data); !errors.Is(err, cause) || errors.Is(err, ErrAuthenticationFailed) {
			t.Errorf("the Deriver fails: %v", err)
		}
		if got, err := o.Open(nil, mustParse(t, body), key, data); err != nil || !bytes.Equal(got, testPlaintext) {
			t.Errorf("good: %q, %v", got, err)
		}
	}
}

// Every field of the context is bound: changed, emptied, filled or taken by
// another field, it does not open.
func TestOpenContext(t *testing.T) {
	key := newMasterKey(1)
	body := sealTest(t, key)
	o := NewOpener(nil)
	if _, err := receive(o, key, body, &testContext); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Context){
		"message ID":              func(c *Context) { c.MessageID += "x" },
		"message ID empty":        func(c *Context) { c.MessageID = "" },
		"session ID":              func(c *Context) { c.SessionID = "octo/repo#43" },
		"session ID empty":        func(c *Context) { c.SessionID = "" },
		"content type":            func(c *Context) { c.ContentType = "text/plain" },
		"content type empty":      func(c *Context) { c.ContentType = "" },
		"correlation ID":          func(c *Context) { c.CorrelationID = "req-80" },
		"correlation ID empty":    func(c *Context) { c.CorrelationID = "" },
		"session and correlation": func(c *Context) { c.SessionID, c.CorrelationID = c.CorrelationID, c.SessionID },
		"attribute":               func(c *Context) { c.Attributes["event"] = "push" },
		"attribute emptied":       func(c *Context) { c.Attributes["event"] = "" },
		"attribute filled":        func(c *Context) { c.Attributes["action"] = "x" },
		"attribute missing":       func(c *Context) { delete(c.Attributes, "action") },
		"attribute renamed":       func(c *Context) { c.Attributes["Event"] = c.Attributes["event"]; delete(c.Attributes, "event") },
		"no attributes":           func(c *Context) { c.Attributes = nil },
	} {
		c := testContext
		c.Attributes = maps.Clone(testContext.Attributes)
		change(&c)
		if got, err := receive(o, key, body, &c); !errors.Is(err, ErrAuthenticationFailed) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// An attribute that was added is not bound, and hinders nothing.
	c := testContext
	c.Attributes = maps.Clone(testContext.Attributes)
	c.Attributes["added"] = "by the broker"
	if got, err := receive(o, key, body, &c); err != nil || !bytes.Equal(got, testPlaintext) {
		t.Errorf("attribute added: %q, %v", got, err)
	}
}

// A message of one domain never opens in the other, with the very same bytes as
// context and associated data.
func TestDomains(t *testing.T) {
	key := newMasterKey(1)
	s := newTestSealer(t, key)
	o := NewOpener(nil)
	h := testHeader(t)
	data := testData(t, &testContext, h.Bound)
	queue, err := s.Seal(nil, h, testPlaintext, data)
	if err != nil {
		t.Fatal(err)
	}
	app, err := s.SealApp(nil, appHeader(t), testPlaintext, data)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time with a warm cache
		if _, err := o.OpenApp(nil, mustParse(t, queue), key, data); !errors.Is(err, ErrAuthenticationFailed) {
			t.Errorf("a queue message opened as the application's own: %v", err)
		}
		if _, err := o.Open(nil, mustParse(t, app), key, data); !errors.Is(err, ErrAuthenticationFailed) {
			t.Errorf("an application's own bytes opened as a queue message: %v", err)
		}
		if got, err := o.Open(nil, mustParse(t, queue), key, data); err != nil || !bytes.Equal(got, testPlaintext) {
			t.Errorf("queue: %q, %v", got, err)
		}
		if got, err := o.OpenApp(nil, mustParse(t, app), key, data); err != nil || !bytes.Equal(got, testPlaintext) {
			t.Errorf("app: %q, %v", got, err)
		}
	}
	if _, err := o.OpenApp(nil, mustParse(t, app), key, append(data, 0)); !errors.Is(err, ErrAuthenticationFailed) {
		t.Errorf("other associated data: %v", err)
	}
}

// Opening never writes into the envelope, whether it succeeds or not: what does
// not open is kept as it came.
func TestOpenKeepsEnvelope(t *testing.T) {
	key := newMasterKey(1)
	body := sealTest(t, key)
	data := testData(t, &testContext, testHeader(t).Bound)
	o := NewOpener(nil)
	bad := bytes.Clone(body)
	bad[len(bad)-1] ^= 1
	for name, b := range map[string][]byte{"good": body, "bad": bad} {
		m := mustParse(t, b)
		kept := bytes.Clone(b)
		for at := range len(b) {
			got, err := o.Open(b[:at:len(b)], m, key, data)
			if len(b)-at >= len(m.Ciphertext) {
				if !errors.Is(err, errOverlap) || got != nil {
					t.Fatalf("%s: dst over the envelope from byte %d: %v", name, at, err)
				}
			} else if name == "good" && err != nil {
				t.Fatalf("%s: dst grows, from byte %d: %v", name, at, err)
			}
			if !bytes.Equal(b, kept) {
				t.Fatalf("%s: dst from byte %d: the envelope was changed", name, at)
			}
		}
	}
}

// A Deriver that is destroyed stops opening, although the cipher is in the cache,
// and its error says so instead of condemning the message.
func TestOpenDestroyed(t *testing.T) {
	key := newMasterKey(1)
	body := sealTest(t, key)
	o := NewOpener(nil)
	if _, err := receive(o, key, body, &testContext); err != nil {
		t.Fatal(err)
	}
	key.destroy()
	for range 2 {
		got, err := receive(o, key, body, &testContext)
		if !errors.Is(err, errDestroyed) || errors.Is(err, ErrAuthenticationFailed) || got != nil {
			t.Fatalf("%q, %v, want the Deriver's error", got, err)
		}
		if n := len(o.cache.index); n != 0 {
			t.Fatalf("%d ciphers of the destroyed key are kept", n)
		}
	}
}
