package sqsqueue

import (
	"bytes"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/driver"
)

func TestBody(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, c := range []struct {
		name     string
		body     string
		sealed   bool
		encoding string
	}{
		{"empty", "", false, encodingEmpty},
		{"dash", "-", false, ""},
		{"text", `{"a":"b"}`, false, ""},
		{"breaks", "a\r\nb\tc", false, ""},
		{"beyond the BMP", "🦀", false, ""},
		{"text that looks sealed", sealedText + "QEA=", false, encodingBinary},
		{"a prefix of that", "UVJFM", false, ""},
		{"plain marker", "QRE1", false, ""},
		{"every byte", string(every), false, encodingBinary},
		{"control character", "a\x00", false, encodingBinary},
		{"noncharacter", "\uffff", false, encodingBinary},
		{"not UTF-8", "\xff", false, encodingBinary},
		{"sealed", "QRE1\x01\x00" + string(every), true, encodingSealed},
	} {
		m := &driver.Message{Body: []byte(c.body), Sealed: c.sealed}
		text, encoding := encodeBody(m)
		if encoding != c.encoding {
			t.Errorf("%s: encoding %q, want %q", c.name, encoding, c.encoding)
		}
		if !validText([]byte(text)) || text == "" {
			t.Errorf("%s: %q is no SQS body", c.name, text)
		}
		if size, e := bodySize(m); size != len(text) || e != encoding {
			t.Errorf("%s: bodySize says %d, %q of %d, %q", c.name, size, e, len(text), encoding)
		}
		body, sealed, ok := decodeBody(text, encoding)
		if !ok || string(body) != c.body || sealed != (c.sealed || strings.HasPrefix(c.body, sealedMarker)) {
			t.Errorf("%s: came back as %q, sealed %t, ok %t", c.name, body, sealed, ok)
		}
	}
}

// Without the attribute a sealed body is still taken for one; with a wrong one it
// is not decodable, and is handed up as it is stored.
func TestBodyTampered(t *testing.T) {
	body := append([]byte("QRE1\x01\x00"), bytes.Repeat([]byte{7}, 100)...)
	text, _ := encodeBody(&driver.Message{Body: body, Sealed: true})
	if got, sealed, ok := decodeBody(text, ""); !ok || !sealed || !bytes.Equal(got, body) {
		t.Errorf("stripped of its attribute: sealed %t, ok %t", sealed, ok)
	}
	if got, sealed, ok := decodeBody(text, encodingBinary); !ok || !sealed || !bytes.Equal(got, body) {
		t.Errorf("marked as binary: sealed %t, ok %t", sealed, ok)
	}
	for name, c := range map[string]struct{ text, encoding string }{
		"cut":               {text[:len(text)-1], encodingSealed},
		"line break":        {text[:8] + "\n" + text[8:], encodingSealed},
		"line break, bare":  {text[:8] + "\n" + text[8:], ""},
		"stray bits":        {"UVJFMR==", encodingSealed},
		"other alphabet":    {text[:8] + "_" + text[9:], ""},
		"unpadded":          {strings.TrimRight(text, "="), "base64url"},
		"unknown encoding":  {text, "gzip"},
		"empty with a body": {text, encodingEmpty},
	} {
		// A case whose text decodes would test nothing.
		got, _, ok := decodeBody(c.text, c.encoding)
		if ok || string(got) != c.text {
			t.Errorf("%s: ok %t, body %q", name, ok, got)
		}
	}
}

func FuzzBody(f *testing.F) {
	f.Add([]byte("QRE1\x01"), true, "", "")
	f.Add([]byte("text"), false, sealedText+"EB", encodingSealed)
	f.Add([]byte{}, false, "-", encodingEmpty)
	f.Fuzz(func(t *testing.T, body []byte, sealed bool, text, encoding string) {
		m := &driver.Message{Body: body, Sealed: sealed}
		out, e := encodeBody(m)
		if !validText([]byte(out)) || out == "" {
			t.Fatalf("%q is no SQS body", out)
		}
		got, _, ok := decodeBody(out, e)
		if !ok || !bytes.Equal(got, body) {
			t.Fatalf("%q came back as %q", body, got)
		}
		// Whatever is stored: bytes come out, and an encoding has one text.
		got, _, ok = decodeBody(text, encoding)
		if !ok && string(got) != text {
			t.Fatalf("undecodable %q became %q", text, got)
		}
		if ok && (encoding == encodingSealed || encoding == encodingBinary) && base64Body.EncodeToString(got) != text {
			t.Fatalf("%q decodes and is not canonical", text)
		}
	})
}

// Text is taken for sealed exactly if it is how base64 begins an envelope, of whatever version.
func TestSealedText(t *testing.T) {
	may := make(map[byte]bool) // stand behind sealedText
	for version := range 256 {
		text := base64Body.EncodeToString([]byte{'Q', 'R', 'E', '1', byte(version), 0})
		may[text[len(sealedText)]] = true
		if !isSealedText(text) {
			t.Errorf("an envelope of version %d is not known", version)
		}
	}
	for c := range 256 {
		if text := sealedText + string([]byte{byte(c)}); isSealedText(text) != may[byte(c)] {
			t.Errorf("%q is taken for sealed: %t", text, isSealedText(text))
		}
	}
}
