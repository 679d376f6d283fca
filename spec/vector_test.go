package spec

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestVectors(t *testing.T) {
	list, err := Vectors()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("no vectors")
	}
	for i, v := range list {
		if v.Name == "" || i > 0 && v.Name <= list[i-1].Name {
			t.Errorf("vector %d is named %q", i, v.Name)
		}
		// A vector is a valid one, or the name says which layer refuses it.
		prefix := "open-"
		if v.Expect != Open {
			prefix = string(v.Layer) + "-"
		}
		if !strings.HasPrefix(v.Name, prefix) {
			t.Errorf("%s: %s at layer %q: the name does not begin with %s", v.Name, v.Expect, v.Layer, prefix)
		}
		if slices.ContainsFunc(list[:i], func(w *Vector) bool { return w.Comment == v.Comment }) {
			t.Errorf("%s: another vector has the same comment", v.Name)
		}
		again, err := ParseVector(v.Text())
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		again.Name = v.Name
		if !reflect.DeepEqual(again, v) {
			t.Errorf("%s: written and read again, it differs", v.Name)
		}
	}
}

func TestVectorsMissing(t *testing.T) {
	for name, fsys := range map[string]fstest.MapFS{
		"none":    {},
		"a fault": {"vectors/a.txt": {Data: []byte("comment: x\n")}},
	} {
		if list, err := vectors(fsys); err == nil {
			t.Errorf("%s: %d vectors, no error", name, len(list))
		}
	}
}

const opening = `comment: It opens.
expect: open
domain: queue
key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
message-id: m%3D%25%20%FF
attribute: a%00=
attribute: b=c
padded: yes
encrypted-at: 1
not-before: 0
expires-at: 0
stream: 000102030405060708090a0b0c0d0e0f
sequence: 9
settled: 7
previous: 8
resealed-at: 2
void: 1-2
void: 5-5
key-id: k
sender-id: s
origin: q
bound: b
check-value: 000102030405060708090a0b0c0d0e0f
sender-key: 101112131415161718191a1b1c1d1e1f000102030405060708090a0b0c0d0e0f
message-key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
additional-data:
 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
 20
plaintext:
envelope:
 51524531
`

const failing = `comment: It does not parse.
expect: invalid_envelope
layer: parse
field: marker
envelope:
`

const direct = `comment: It does not open.
expect: authentication_failed
layer: authentication
domain: app
key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
associated-data:
envelope:
 51524531
`

func TestParseVector(t *testing.T) {
	v, err := ParseVector(opening)
	if err != nil {
		t.Fatal(err)
	}
	if v.MessageID != "m=% \xff" || !slices.Equal(v.Attributes, []Attribute{{"a\x00", ""}, {"b", "c"}}) ||
		len(v.AdditionalData) != 33 || v.AdditionalData[32] != 0x20 || string(v.Envelope) != "QRE1" || len(v.Plaintext) != 0 {
		t.Errorf("vector %+v, want every field as it is written", v)
	}
	for _, text := range []string{failing, direct} {
		if _, err := ParseVector(text); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

func TestParseVectorErrors(t *testing.T) {
	for _, tt := range []struct{ name, text, old, new string }{
		{"empty", failing, failing, ""},
		{"no end of the last line", failing, "envelope:\n", "envelope:"},
		{"no end of the last line of a block", opening, " 51524531\n", " 51524531"},
		{"carriage returns", failing, "\n", "\r\n"},
		{"a line without a name", failing, "layer", "\nlayer"},
		{"an unknown name", failing, "field", "fields"},
		{"another order", failing, "layer: parse\nfield: marker\n", "field: marker\nlayer: parse\n"},
		{"a name twice", failing, "layer: parse\n", "layer: parse\nlayer: parse\n"},
		{"no comment", failing, "comment: It does not parse.\n", ""},
		{"two spaces", failing, "layer: parse", "layer:  parse"},
		{"no space", failing, "layer: parse", "layer:parse"},
		{"trailing space", failing, "layer: parse", "layer: parse "},
		{"another outcome", failing, "invalid_envelope", "invalid"},
		{"no outcome", failing, "expect: invalid_envelope\n", ""},
		{"no layer", failing, "layer: parse\nfield: marker\n", ""},
		{"another layer", failing, "layer: parse\nfield: marker\n", "layer: tag\n"},
		{"no field", failing, "field: marker\n", ""},
		{"a field at another layer", direct, "layer: authentication\n", "layer: authentication\nfield: marker\n"},
		{"authentication at layer parse", direct, "layer: authentication", "layer: parse"},
		{"a layer that opens", opening, "expect: open\n", "expect: open\nlayer: parse\n"},
		{"another domain", direct, "domain: app", "domain: apps"},
		{"no domain", direct, "domain: app\n", ""},
		{"a short key", direct, "key: 00", "key: "},
		{"key in upper case", direct, "0a0b", "0A0B"},
		{"a key that is no hexadecimal", direct, "0a0b", "0x0b"},
		{"fields in direct use", direct, "associated-data:\n", "message-id: m\nassociated-data:\n"},
		{"associated data of a queue", opening, "encrypted-at", "associated-data:\n 00\nencrypted-at"},
		{"an empty field", opening, "attribute: b=c", "session-id: \nattribute: b=c"},
		{"an attribute without =", opening, "attribute: b=c", "attribute: bc"},
		{"an attribute twice", opening, "attribute: b=c", "attribute: b=c\nattribute: b=d"},
		{"escape in lower case", opening, "%FF", "%ff"},
		{"escape that is not needed", opening, "%FF", "%41"},
		{"escape cut", opening, "%FF", "%F"},
		{"escape of no digits", opening, "%FF", "%GG"},
		{"a byte that is not escaped", opening, "%FF", "\xff"},
		{"attribute name badly escaped", opening, "attribute: b=c", "attribute: %=c"},
		{"number with a sign", opening, "encrypted-at: 1", "encrypted-at: +1"},
		{"number with zeros", opening, "encrypted-at: 1", "encrypted-at: 01"},
		{"no number", opening, "encrypted-at: 1", "encrypted-at: x"},
		{"no message key", opening, "message-key: 00", "message-key: "},
		{"no sender key", opening, "sender-key: 10", "sender-key: "},
		{"a short check value", opening, "check-value: 00", "check-value: "},
		{"a short stream", opening, "stream: 00", "stream: "},
		{"padded, but not yes", opening, "padded: yes", "padded: no"},
		{"a void range without -", opening, "5-5", "5"},
		{"a void range that is no number", opening, "5-5", "5-x"},
		{"an empty sender ID", opening, "sender-id: s", "sender-id: "},
		{"key_not_found at another layer", direct, "authentication_failed", "key_not_found"},
		{"authentication at layer key", direct, "layer: authentication", "layer: key"},
		{"a long line in a block", opening, "1f\n 20\n", "1f20\n"},
		{"a short line in a block", opening, "1e1f\n 20\n", "1e\n 1f20\n"},
		{"an odd number of digits", opening, " 51524531", " 5152453"},
		{"an empty line in a block", opening, " 51524531\n", " 51524531\n \n"},
		{"a block on the line of its name", opening, "envelope:\n 51524531", "envelope: 51524531"},
		{"something at the end", failing, "envelope:\n", "envelope:\n\n"},
		{"what comes out of a failure", direct, "envelope:", "plaintext:\n 00\nenvelope:"},
	} {
		text := strings.ReplaceAll(tt.text, tt.old, tt.new)
		if text == tt.text {
			t.Fatalf("%s: nothing was changed", tt.name)
		}
		if v, err := ParseVector(text); err == nil {
			t.Errorf("%s: no error: %+v", tt.name, v)
		}
	}
}

// The document and the vectors travel together: what the vectors say, the document
// lists.
func TestDocument(t *testing.T) {
	for _, want := range []string{
		"# QRE1", "## 9. Test vectors", "QRE1/sender/v1", "QRE1/A256GCM-HKDF-SHA256-COMMIT/v1", "QRE1/check/v1", "QRE1-AAD-v1", "QRE1-APP-v1",
	} {
		if !strings.Contains(Document, want) {
			t.Errorf("the document does not contain %q", want)
		}
	}
	list, err := Vectors()
	if err != nil {
		t.Fatal(err)
	}
	// Section 9.1, with its lines joined.
	_, form, _ := strings.Cut(strings.ReplaceAll(Document, "\n", " "), "### 9.1. Form")
	for _, v := range list {
		for _, value := range []string{string(v.Expect), string(v.Layer), v.Field, string(v.Domain)} {
			if value != "" && !strings.Contains(form, "`"+value+"`") {
				t.Errorf("%s says %q, and Section 9.1 does not list it", v.Name, value)
			}
		}
		for _, line := range strings.Split(v.Text(), "\n") {
			if name, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") && !strings.Contains(form, name) {
				t.Errorf("%s has %s, and Section 9.1 does not list it", v.Name, name)
			}
		}
	}
}
