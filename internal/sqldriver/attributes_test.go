package sqldriver

import (
	"maps"
	"testing"
)

func FuzzAttributes(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(EncodeAttributes(map[string]string{"a": "1", "b": ""}))
	f.Add([]byte("\x01a\x011\x01a\x012"))      // a name twice
	f.Add([]byte("\x01b\x011\x01a\x012"))      // not in order
	f.Add([]byte("\x81\x00a\x011"))            // a longer form of a length
	f.Add([]byte("\xff\xff\xff\xff\xff\x7fa")) // longer than there is
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeAttributes(b)
		if err != nil {
			return
		}
		// What is accepted is what would have been written.
		if again := EncodeAttributes(m); string(again) != string(b) {
			t.Errorf("%q was read as %q and would be written as %q", b, m, again)
		}
	})
}

func TestAttributes(t *testing.T) {
	for _, m := range []map[string]string{
		nil, {"a": ""}, {"a": "1", "b": "2", "ab": "3"}, {"\x00\xff": "\x80"}, {"long": string(make([]byte, 70000))},
		{string(make([]byte, 127)): string(make([]byte, 128)), "a": string(make([]byte, 1<<14-1)), "b": string(make([]byte, 1<<14))},
	} {
		got, err := DecodeAttributes(EncodeAttributes(m))
		if err != nil || !maps.Equal(got, m) || AttributesSize(m) != len(EncodeAttributes(m)) {
			t.Errorf("%d attributes: %v, %d bytes for %d", len(m), err, AttributesSize(m), len(EncodeAttributes(m)))
		}
	}
	for _, b := range []string{"\x01a\x011\x01a\x012", "\x01b\x011\x01a\x012", "\x81\x00a\x011", "\x01", "\x01a", "\x01a\x02b", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if m, err := DecodeAttributes([]byte(b)); err == nil {
			t.Errorf("%q was read as %q", b, m)
		}
	}
}
