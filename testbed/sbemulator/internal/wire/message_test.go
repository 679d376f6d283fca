package wire

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
)

// theirs is a message with every section that go-amqp can write.
func theirs() *amqp.Message {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	return &amqp.Message{
		Header:              &amqp.MessageHeader{Durable: true, Priority: 7, TTL: 90 * time.Second, FirstAcquirer: true, DeliveryCount: 3},
		DeliveryAnnotations: amqp.Annotations{"d": "x"},
		Annotations:         amqp.Annotations{"x-opt-scheduled-enqueue-time": at, "x-opt-partition-key": "k"},
		Properties: &amqp.MessageProperties{
			MessageID: "id", UserID: []byte("u"), To: ptr("to"), Subject: ptr("subject"), ReplyTo: ptr("reply"),
			CorrelationID: uint64(5), ContentType: ptr("application/json"), ContentEncoding: ptr("gzip"),
			AbsoluteExpiryTime: &at, CreationTime: &at, GroupID: ptr("session"), GroupSequence: ptr(uint32(9)),
			ReplyToGroupID: ptr("other"),
		},
		ApplicationProperties: map[string]any{"s": "v", "i": int32(-5), "l": int64(1 << 40), "b": true, "f": 1.5, "t": at,
			"u": amqp.UUID{1, 2, 3}, "bin": []byte{0, 255}},
		Data:   [][]byte{[]byte("one"), bytes.Repeat([]byte("two"), 200)},
		Footer: amqp.Annotations{"f": "y"},
	}
}

// TestMessageFromOther parses what another implementation wrote.
func TestMessageFromOther(t *testing.T) {
	b, err := theirs().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Header{Durable: true, Priority: 7, TTL: ptr(uint32(90_000)), FirstAcquirer: true, DeliveryCount: 3}); !reflect.DeepEqual(m.Header, want) {
		t.Errorf("header %+v", m.Header)
	}
	if at, _ := m.Annotations.Get("x-opt-scheduled-enqueue-time"); at != Timestamp(1_700_000_000_123) {
		t.Errorf("annotation %v", at)
	}
	p := m.Properties
	if p.MessageID != "id" || p.CorrelationID != uint64(5) || *p.GroupID != "session" || *p.ContentType != "application/json" ||
		*p.GroupSequence != 9 || *p.ReplyToGroupID != "other" || p.Rest[0] != Symbol("gzip") || *p.To != "to" {
		t.Errorf("properties %+v", p)
	}
	if v, _ := m.Application.Get("l"); v != int64(1<<40) {
		t.Errorf("application property %v", v)
	}
	if data, ok := m.Data(); !ok || len(data) != 2 || string(data[0]) != "one" || len(data[1]) != 600 {
		t.Errorf("data %q", data)
	}
	if got := m.Append(nil); !bytes.HasSuffix(b, got[len(got)-m.Size():]) {
		t.Error("the bare message was not kept byte for byte")
	}
}

// TestMessageToOther has another implementation read what this one wrote, with
// every section encoded anew.
func TestMessageToOther(t *testing.T) {
	b, err := theirs().MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMessage(b)
	if err != nil {
		t.Fatal(err)
	}
	m.SetProperties(m.Properties)
	m.SetApplication(m.Application)
	var got amqp.Message
	if err := got.UnmarshalBinary(m.Append(nil)); err != nil {
		t.Fatal(err)
	}
	var want amqp.Message
	if err := want.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestMessageBodies(t *testing.T) {
	m := &Message{}
	m.SetData(nil)
	if data, ok := m.Data(); !ok || len(data) != 1 || len(data[0]) != 0 {
		t.Errorf("empty data section: %q, %v", data, ok)
	}
	m.SetValue(Map{{"k", int32(1)}})
	if _, ok := m.Data(); ok {
		t.Error("a value body was taken for data")
	}
	if m.Body() != nil {
		t.Error("a value body has bytes")
	}
	again, err := ParseMessage(m.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := again.Value(); !ok || !reflect.DeepEqual(v, Map{{"k", int32(1)}}) {
		t.Errorf("value %#v, %v", v, ok)
	}
	if _, ok := (&Message{}).Value(); ok {
		t.Error("an empty message has a value")
	}
	again.SetApplication(nil)
	if c := again.Clone(); c.Size()-c.around != len(c.body) {
		t.Error("an empty map left an application-properties section")
	}
}

func TestParseMessageRefuses(t *testing.T) {
	sec := func(code uint64, v any) []byte { return Append(nil, Described{code, v}) }
	data, value := sec(descData, []byte("x")), sec(descValue, "x")
	for name, b := range map[string][]byte{
		"a plain value":            Append(nil, "x"),
		"an unknown section":       sec(0x79, Map{}),
		"an unknown symbol":        Append(nil, Described{Symbol("x"), nil}),
		"a performative":           sec(descOpen, List{}),
		"a header twice":           append(sec(descHeader, List{}), sec(descHeader, List{})...),
		"a header after the body":  append(bytes.Clone(data), sec(descHeader, List{})...),
		"a body of mixed sections": append(bytes.Clone(data), value...),
		"two values":               append(bytes.Clone(value), value...),
		"a header of a map":        sec(descHeader, Map{}),
		"properties of a map":      sec(descProperties, Map{}),
		"application of a list":    sec(descApplication, List{}),
		"annotations of a list":    sec(descMessage, List{}),
		"a footer of a list":       sec(descFooter, List{}),
		"data of a string":         sec(descData, "x"),
		"a sequence of a string":   sec(descSequence, "x"),
		"a message-id of a list":   sec(descProperties, List{List{}}),
		"a to of an int":           sec(descProperties, List{nil, nil, int32(1)}),
		"fourteen properties":      sec(descProperties, append(make(List, 13), true)),
		"a section cut short":      data[:len(data)-1],
	} {
		if m, err := ParseMessage(b); !errors.Is(err, ErrDecode) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	b, err := theirs().MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(Append(nil, Described{uint64(descValue), Map{{Symbol("k"), List{}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		m.Data()
		m.Value()
		m.Body()
		again, err := ParseMessage(m.Append(nil))
		if err != nil {
			t.Fatalf("does not parse from its own encoding: %v", err)
		}
		if !bytes.Equal(again.Append(nil), m.Append(nil)) {
			t.Fatal("parsing changed the message")
		}
		m.SetProperties(m.Properties)
		m.SetApplication(m.Application)
		if _, err := ParseMessage(m.Append(nil)); err != nil {
			t.Fatalf("does not parse with its sections encoded anew: %v", err)
		}
	})
}
