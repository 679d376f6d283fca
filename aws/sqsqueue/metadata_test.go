package sqsqueue

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

// roundtrip lays m out and reads it back.
func roundtrip(t *testing.T, m *driver.Message) (*driver.Message, map[string]types.MessageAttributeValue) {
	t.Helper()
	attrs, err := attributes(m, encodingSealed, "packed session")
	if err != nil {
		t.Fatal(err)
	}
	if len(attrs) > sendAttributes {
		t.Fatalf("%d attributes", len(attrs))
	}
	for name, v := range attrs {
		if !driverName(name) && !nativeName(name) || !nativeValue(aws.ToString(v.StringValue)) {
			t.Fatalf("SQS takes no attribute %q = %q", name, aws.ToString(v.StringValue))
		}
	}
	got := &driver.Message{}
	session, state := parseMetadata(got, attrs)
	if state != metadataSound || session != "packed session" {
		t.Fatalf("session %q, state %d", session, state)
	}
	return got, attrs
}

func TestMetadata(t *testing.T) {
	many := make(map[string]string)
	for i := range 10 {
		many[fmt.Sprintf("n%d", i)] = fmt.Sprint(i)
	}
	awkward := map[string]string{
		"empty": "", "sp ace": "1", "größe": "漢字 🦀", ".dot": "1", "a..b": "1", "aws.x": "1", "AMAZON.y": "1",
		"zero": "\x00", "noncharacter": "\uffff\ufffe", "quote": `"\<>&`,
	}
	trace := map[string]string{traceParent: "00-1-2-03", traceState: "a=b"}
	for _, m := range []*driver.Message{
		{ID: "id"},
		{ID: "id", CorrelationID: "c", ContentType: "text/plain; charset=\"utf-8\"", TTL: 90 * time.Minute, Trace: trace},
		{ID: "id", Attributes: map[string]string{"event": "push"}, Trace: trace},
		{ID: "id", Attributes: many, Trace: trace},
		{ID: "id\x00🦀", Attributes: awkward, CorrelationID: "\x01", Trace: trace},
	} {
		got, attrs := roundtrip(t, m)
		if got.ID != m.ID || got.CorrelationID != m.CorrelationID || got.ContentType != m.ContentType || got.TTL != m.TTL ||
			!maps.Equal(got.Attributes, m.Attributes) || !maps.Equal(got.Trace, m.Trace) {
			t.Errorf("sent %+v, got %+v", m, got)
		}
		if size := attributesSize(attrs); size <= 0 {
			t.Errorf("size %d", size)
		}
	}
	// If there is room, other programs find each attribute under its own name.
	_, attrs := roundtrip(t, &driver.Message{ID: "id", Attributes: map[string]string{"event": "push"}, Trace: trace})
	for _, name := range []string{"event", traceParent, traceState, attrID} {
		if _, ok := attrs[name]; !ok {
			t.Errorf("%s has no attribute of its own", name)
		}
	}
}

func TestMetadataRefuses(t *testing.T) {
	for name, m := range map[string]*driver.Message{
		"attribute value": {ID: "id", Attributes: map[string]string{"a": "\xff"}},
		"attribute name":  {ID: "id", Attributes: map[string]string{"\xff": "a"}},
		"correlation":     {ID: "id", CorrelationID: "\xff"},
		"ID":              {ID: "\xff"},
	} {
		_, err := attributes(m, "", "")
		if !isInvalid(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func isInvalid(err error) bool { return driver.KindOf(err) == driver.Invalid }

// What was tampered with is reported, and never panics or merges.
func TestMetadataTampered(t *testing.T) {
	str := func(s string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(s)}
	}
	type attributes = map[string]types.MessageAttributeValue
	for name, tt := range map[string]struct {
		attrs attributes
		want  metadataState
	}{
		"not JSON":         {attributes{attrPacked: str("{")}, metadataBroken},
		"wrong type":       {attributes{attrPacked: str(`{"attributes":{"a":"b"}}`)}, metadataBroken},
		"twice, packed":    {attributes{attrPacked: str(`{"attributes":[["a","1"],["a","2"]]}`)}, metadataDuplicate},
		"twice, in both":   {attributes{"a": str("1"), attrPacked: str(`{"attributes":[["a","1"]]}`)}, metadataDuplicate},
		"two IDs":          {attributes{attrID: str("1"), attrPacked: str(`{"id":"2"}`)}, metadataBroken},
		"two IDs, twice":   {attributes{attrID: str("1"), "a": str("1"), attrPacked: str(`{"id":"2","attributes":[["a","1"]]}`)}, metadataBroken},
		"binary, not JSON": {attributes{attrPacked: {DataType: aws.String("Binary"), BinaryValue: []byte{0xff}}}, metadataBroken},
	} {
		if _, state := parseMetadata(&driver.Message{}, tt.attrs); state != tt.want {
			t.Errorf("%s: %d, want %d", name, state, tt.want)
		}
		raw := &types.Message{MessageAttributes: tt.attrs, Body: aws.String("b")}
		if d := (&queue{}).delivery(raw); d.DuplicateName != (tt.want == metadataDuplicate) || d.Undecodable != (tt.want == metadataBroken) {
			t.Errorf("%s: delivery with DuplicateName %t, Undecodable %t", name, d.DuplicateName, d.Undecodable)
		}
	}
	m := &driver.Message{}
	if _, state := parseMetadata(m, map[string]types.MessageAttributeValue{attrPacked: str(`{"ttl_ms":9223372036854775807}`)}); state != metadataSound || m.TTL != 0 {
		t.Errorf("a TTL beyond all bounds: %s, state %d", m.TTL, state)
	}
}

func TestSize(t *testing.T) {
	f := newFakeSQS()
	f.create("q.fifo", nil)
	q := open(t, connect(t, f, nil), "q", nil).(*queue)
	for _, m := range []*driver.Message{
		{ID: "id", Body: []byte("text")},
		{ID: "id"},
		{ID: "id", SessionID: "with space", Body: make([]byte, 1000), Sealed: true, Attributes: map[string]string{"a": "b", "c": ""}},
	} {
		e, size, err := q.entry(m)
		if err != nil {
			t.Fatal(err)
		}
		if want := len(*e.MessageBody) + attributesSize(e.MessageAttributes); size != want || q.Size(m) != want {
			t.Errorf("Size %d, entry %d, want %d", q.Size(m), size, want)
		}
	}
}

func TestTooLarge(t *testing.T) {
	f := newFakeSQS()
	f.create("q", map[string]string{"MaximumMessageSize": "262144"})
	q := open(t, connect(t, f, nil), "q", nil)
	m := &driver.Message{ID: strings.Repeat("i", 128), Body: make([]byte, q.Capabilities().MaxBody), Sealed: true}
	over := *m
	over.Body = append(over.Body, 0)
	heavy := *m
	heavy.Attributes = map[string]string{"a": strings.Repeat("v", 32<<10)}
	eleven := &driver.Message{ID: "id", Attributes: make(map[string]string)}
	for i := range 11 {
		eleven.Attributes[fmt.Sprint(i)] = "v"
	}
	r := q.Send(t.Context(), []*driver.Message{m, &over, &heavy, eleven})
	if r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	for i, want := range map[int]string{
		1: "body of 184321 bytes exceeds the limit of 184320",
		2: "exceeds the limit of 261120",
		3: "attributes of 11 entries exceeds the limit of 10",
	} {
		wantError(t, r[i].Err, driver.ErrTooLarge)
		if !strings.Contains(r[i].Err.Error(), want) {
			t.Errorf("%d: %v, want %q", i, r[i].Err, want)
		}
	}
}

// A session travels as the message group where SQS can hold it.
func TestGroups(t *testing.T) {
	long := strings.Repeat("i", 128)
	for _, c := range []struct{ id, dedup, session, group, packed string }{
		{"id", "", "pr/1", "pr/1", ""},
		{"id", "", "", "id", ""},
		{"id", "id", "", "id", ""},
		{"id", "other", "", "id#", ""},
		{"id", "other", "id#x", "id#x", "id#x"},
		{"id", "", "id", "id", "id"},
		{"id", "", "with space", "sha256.", "with space"},
		{"ünı", "", "", "sha256.", ""},
		{"ünı", "other", "", "sha256.", ""},
		{long, "", "", long, ""},
		{long, "other", "", "", ""},
		{"id", "", strings.Repeat("s", 129), "sha256.", strings.Repeat("s", 129)},
	} {
		m := &driver.Message{ID: c.id, DedupID: c.dedup, SessionID: c.session}
		group, packed := groupOf(m)
		if !strings.HasPrefix(group, c.group) || packed != c.packed || len(group) > 128 {
			t.Errorf("%q, %q: group %q, packed %q", c.id, c.session, group, packed)
		}
		if got := sessionOf(group, c.id, packed); got != c.session {
			t.Errorf("%q, %q: came back as %q", c.id, c.session, got)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add("id", "c", "name", "value", `{"attributes":[["a","b"]]}`)
	f.Fuzz(func(t *testing.T, id, correlation, name, val, raw string) {
		// Whatever is stored is read without a panic.
		parseMetadata(&driver.Message{}, map[string]types.MessageAttributeValue{
			attrPacked: {DataType: aws.String("String"), StringValue: aws.String(raw)}, name: {BinaryValue: []byte(val)}})
		if name == "" || driverName(name) || name == traceParent || name == traceState {
			return // reserved
		}
		m := &driver.Message{ID: id, CorrelationID: correlation, Attributes: map[string]string{name: val}}
		attrs, err := attributes(m, "", "")
		if err != nil {
			return
		}
		got := &driver.Message{}
		if _, state := parseMetadata(got, attrs); state != metadataSound || got.ID != id || got.CorrelationID != correlation || !maps.Equal(got.Attributes, m.Attributes) {
			t.Fatalf("sent %+v, got %+v, state %d", m, got, state)
		}
	})
}
