package sessionkey_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/queue-runtime/queue/sessionkey"
)

func TestField(t *testing.T) {
	m := pullRequest()
	for path, id := range map[string]string{
		"number":                      "42",
		"pull_request.number":         "42",
		"/pull_request/number":        "42",
		"action":                      "opened",
		"repository.full_name":        "octo/hello",
		"repository.id":               "186853002",
		"repository.private":          "true",
		"pull_request.draft":          "false",
		"pull_request.title":          `Say "hello": {[`,
		"pull_request.labels.1.name":  "b",
		"/pull_request/labels/0/name": "a",
		"pull_request.labels.2.name":  "",
		"pull_request.labels.01.name": "",
		"pull_request.labels.+1.name": "",
		"pull_request.labels.-1.name": "",
		"pull_request.labels.name":    "",
		"pull_request.milestone":      "",
		"pull_request.milestone.id":   "",
		"pull_request.body":           "",
		"pull_request.none":           "",
		"none.number":                 "",
		"number.none":                 "",
		"Number":                      "",
	} {
		want(t, sessionkey.Field(path), m, id)
	}
	refused(t, sessionkey.Field("pull_request"), m, sessionkey.ErrMessage, "an object or an array")
	refused(t, sessionkey.Field("pull_request.labels"), m, sessionkey.ErrMessage, "an object or an array")
}

func TestFieldPaths(t *testing.T) {
	m := &sessionkey.Message{Body: []byte(`{"":{"":"empty"},"a.b":"dot","a/b":"slash","a~b":"tilde","~1":"both","ä":"umlaut","\u0042":"escaped","0":"zero","a":[["x","y"]]}`)}
	for path, id := range map[string]string{
		"//": "empty", "/a.b": "dot", "/a~1b": "slash", "a/b": "slash", "/a~0b": "tilde", "a~b": "tilde", "/~01": "both",
		"ä": "umlaut", "B": "escaped", "0": "zero", "a.0.1": "y", "a.b": "",
	} {
		want(t, sessionkey.Field(path), m, id)
	}
	for path, says := range map[string]string{
		"": "an empty name", ".": "an empty name", "a.": "an empty name", ".a": "an empty name", "a..b": "an empty name",
		"/~": "neither ~0 nor ~1", "/a~2": "neither", "/~~0": "neither", "\xff": "not UTF-8", strings.Repeat("a.", 32) + "a": "33 names",
	} {
		refused(t, sessionkey.Field(path), m, sessionkey.ErrStrategy, says)
	}
	want(t, sessionkey.Field(strings.Repeat("a.", 31)+"a"), m, "")
}

func TestFieldContentType(t *testing.T) {
	for contentType, id := range map[string]string{
		"": "x", "application/json": "x", "Application/JSON ; charset=utf-8": "x", "application/cloudevents+json": "x", "text/json": "x",
		"text/plain": "", "application/jsonp": "", "json": "", "application/xml; x=/json": "",
	} {
		want(t, sessionkey.Field("a"), &sessionkey.Message{Body: []byte(` {"a":"x"}`), ContentType: contentType}, id)
	}
	for _, body := range []string{"", " \n", "text", "QRE1", `"a"`, "1", "\xef\xbb\xbf{}"} {
		want(t, sessionkey.Field("a"), &sessionkey.Message{Body: []byte(body)}, "")
	}
}

// A name that comes twice on the path is refused, whatever its case and escapes: a decoder
// may take the other one. Elsewhere it may come as often as it likes.
func TestFieldTwice(t *testing.T) {
	const f = sessionkey.Field("owner.id")
	for _, body := range []string{
		`{"owner":{"id":"a"},"owner":{"id":"b"}}`,
		`{"owner":{"id":"a","id":"b"}}`,
		`{"owner":{"id":"a","x":[{"id":1}],"ID":"b"}}`,
		`{"Owner":{"id":"b"},"owner":{"id":"a"}}`,
		`{"owner":{"id":"a","\u0069d":"b"}}`,
		`{"owner":{"\u0049d":"b","id":"a"}}`,
	} {
		_, err := f.SessionID(&sessionkey.Message{Body: []byte(body)})
		if !errors.Is(err, sessionkey.ErrMessage) || !strings.Contains(err.Error(), "comes twice") {
			t.Errorf("%s: %v, want an error that says what comes twice", body, err)
		}
	}
	for _, body := range []string{
		`{"x":1,"x":2,"owner":{"id":"a"},"id":"b"}`,
		`{"owner":{"y":{"id":"b"},"id":"a","y":1},"z":{"owner":1}}`,
		`{"owner":{"id":"a"},"behind":?`, // the decoder's affair
	} {
		if id, err := f.SessionID(&sessionkey.Message{Body: []byte(body)}); id != "a" || err != nil {
			t.Errorf("%s: %q, %v, want a", body, id, err)
		}
	}
}

func TestFieldMalformed(t *testing.T) {
	const f = sessionkey.Field("a.b")
	for body, says := range map[string]string{
		`{`:                              "ends too early",
		`{"a"`:                           "ends too early",
		`{"a":`:                          "ends too early",
		`{"a":{`:                         "ends too early",
		`{"a":{"b"`:                      "ends too early",
		`{"a":{"b":1`:                    "ends too early",
		`{"a":{"b":nul`:                  "ends too early",
		`{"a":{"b":"x`:                   "ends too early",
		`{"a":{"b":"x\"`:                 "ends too early",
		`{"a":{"c":"x"`:                  "ends too early",
		`{"a":{"c":[{}`:                  "ends too early",
		`{"a":{"c":["\`:                  "ends too early",
		`{"a" 1}`:                        "malformed JSON at byte 5",
		`{a:1}`:                          "malformed JSON at byte 1",
		`{"x":1 "a":1}`:                  "malformed JSON at byte 7",
		`{"x":1,}`:                       "malformed JSON at byte 7",
		`{"x":}`:                         "malformed JSON at byte 5",
		`{"x":?}`:                        "malformed JSON at byte 5",
		`{"a":{"b":?}}`:                  "malformed JSON at byte 10",
		`{"a":{"b":12x}}`:                "a malformed value",
		`{"a":{"b":nulL}}`:               "a malformed value",
		`{"a":{"b":01}}`:                 "a malformed value",
		`{"a":{"b":"\x"}}`:               "a malformed value",
		"{\"a\":{\"b\":\"\xff\"}}":       "a malformed value",
		"{\"a\":{\"b\":\"\n\"}}":         "a malformed value",
		`{"a":{"\x":1}}`:                 "a malformed name",
		`{"a":{"b":"\u0000"}}`:           "a control character at byte 0",
		`{"a":{"b":[]}}`:                 "an object or an array",
		`{"a":{"b":{"c":1}}}`:            "an object or an array",
		`{"a":{"b":"` + long(129) + `"`:  "129 bytes: use 128",
		`{"a":{"b":"` + long(999) + `"`:  "1001 bytes: use 128",
		`{"a":{"b":` + digits(200) + ` `: "200 bytes: use 128",
	} {
		m := &sessionkey.Message{Body: []byte(body)}
		refused(t, f, m, sessionkey.ErrMessage, says)
		refused(t, f, m, sessionkey.ErrMessage, `field "a.b"`)
	}
	for body, says := range map[string]string{
		`{"a":[1,`: "ends too early", `{"a":[1 2`: "malformed JSON at byte 8", `{"a":[?`: "malformed JSON at byte 6", `{"a":[`: "ends too early",
	} {
		refused(t, sessionkey.Field("a.1"), &sessionkey.Message{Body: []byte(body)}, sessionkey.ErrMessage, says)
	}
	want(t, f, &sessionkey.Message{Body: []byte(`{"a":{"b":"` + long(128) + `"`)}, long(128))
	want(t, f, &sessionkey.Message{Body: []byte(`{"a":{"b":"` + strings.Repeat(`\u0061`, 128) + `"`)}, strings.Repeat("a", 128))
	want(t, f, &sessionkey.Message{Body: []byte(`{"a":{"b":"x"}, what follows is not looked at`)}, "x")
	want(t, sessionkey.Field("a.0"), &sessionkey.Message{Body: []byte(`{"a":[]}`)}, "")
}

func long(n int) string   { return strings.Repeat("x", n) }
func digits(n int) string { return strings.Repeat("1", n) }

// TestFieldBound: a field is looked for in the first MiB, and a value that the
// bound cuts is not taken for a shorter one.
func TestFieldBound(t *testing.T) {
	for _, at := range []int{1<<20 - 20, 1<<20 - 12, 1<<20 - 11, 1<<20 - 9, 1<<20 - 2, 1 << 20, 1<<20 + 5} {
		body := []byte(`{"x":"` + strings.Repeat("x", at-len(`{"x":"","id":`)) + `","id":123456789}`)
		got, err := sessionkey.Field("id").SessionID(&sessionkey.Message{Body: body})
		if at+len("123456789,") <= 1<<20 {
			if got != "123456789" || err != nil {
				t.Errorf("at %d: %q, %v", at, got, err)
			}
			continue
		}
		if got != "" || !errors.Is(err, sessionkey.ErrMessage) || !strings.Contains(err.Error(), "first 1048576 bytes") {
			t.Errorf("at %d: %q, %v", at, got, err)
		}
	}
}

// lookup is Field by means of encoding/json: it walks the tokens of a valid
// document to the first value at the path.
func lookup(d *json.Decoder, path []string) (any, bool) {
	t, err := d.Token()
	if err != nil {
		return nil, false
	}
	if len(path) == 0 {
		return t, true
	}
	switch t {
	case json.Delim('{'):
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, false
			}
			if name == path[0] {
				return lookup(d, path[1:])
			}
			var over json.RawMessage
			if d.Decode(&over) != nil {
				return nil, false
			}
		}
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			if fmt.Sprint(i) == path[0] {
				return lookup(d, path[1:])
			}
			var over json.RawMessage
			if d.Decode(&over) != nil {
				return nil, false
			}
		}
	}
	return nil, false
}

// FuzzField: no body panics, and of a valid one the answer is what encoding/json
// finds.
func FuzzField(f *testing.F) {
	for _, body := range []string{
		string(pullRequest().Body), `{"a":{"b":1}}`, `{"a":["x",{"b":"y"}]}`, `{"a":{"b":"\ud83d\ude00\\\""}}`, `[[1,2],[3]]`, `{"a":1,"a":{"b":null}}`,
		`{"\u0061":{"b":-1.5e+3}}`, "\t{ \"a\" :\n[ ] , \"b\" : \"\\\\\" }", `{"a":{"b":"` + strings.Repeat(`\n`, 300) + `"}}`, `{"a`, `{"a":{"b":12`,
	} {
		f.Add([]byte(body), "a.b")
		f.Add([]byte(body), "/a/1/b")
		f.Add([]byte(body), "1.0")
	}
	f.Fuzz(func(t *testing.T, body []byte, path string) {
		before := bytes.Clone(body)
		id, err := sessionkey.Field(path).SessionID(&sessionkey.Message{Body: body, ContentType: "application/json"})
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		if err != nil && (id != "" || !errors.Is(err, sessionkey.ErrMessage) && !errors.Is(err, sessionkey.ErrStrategy)) {
			t.Fatalf("%q, %v", id, err)
		}
		if err := sessionkey.Check(id); err != nil {
			t.Fatal(err)
		}
		if err != nil && strings.Contains(err.Error(), "comes twice") {
			return // encoding/json takes one of them
		}
		if errors.Is(err, sessionkey.ErrStrategy) != (sessionkey.Validate(sessionkey.Field(path)) != nil) {
			t.Fatalf("Validate and SessionID differ: %v", err)
		}
		if strings.HasPrefix(path, "/") || errors.Is(err, sessionkey.ErrStrategy) || !json.Valid(body) || !utf8.Valid(body) || len(body) > 1<<20 {
			return
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		value, found := lookup(d, strings.Split(path, "."))
		expect := ""
		switch v := value.(type) {
		case json.Delim:
			if err == nil {
				t.Fatalf("%q for an object or array", id)
			}
			return
		case nil:
		default:
			expect = fmt.Sprint(v)
		}
		if !found {
			expect = ""
		}
		if sessionkey.Check(expect) != nil {
			if err == nil {
				t.Fatalf("%q for an unusable value", id)
			}
			return
		}
		if err != nil || id != expect {
			t.Fatalf("%q, %v; encoding/json finds %q", id, err, expect)
		}
	})
}

func BenchmarkField(b *testing.B) {
	// As large as webhooks are, with the repository behind a large object.
	body := []byte(`{"number":42,"pull_request":{"x":[` + strings.Repeat(`{"url":"https://api.github.com/repos/octo/hello/pulls/42","n":12345,"ok":true},`, 250) +
		`{}]},"repository":{"full_name":"octo/hello"}}`)
	m := &sessionkey.Message{Body: body, ContentType: "application/json"}
	for _, path := range []sessionkey.Field{"number", "repository.full_name"} {
		b.Run(string(path), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if id, err := path.SessionID(m); id == "" || err != nil {
					b.Fatal(id, err)
				}
			}
		})
	}
}
