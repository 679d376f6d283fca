package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// fileSecret has a slash in base64, which JSON may escape.
var fileSecret = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xff, 0xf0, 0x3f, 'x'}, 8))

func fileOf(format string, args ...any) []byte {
	return []byte(strings.ReplaceAll(fmt.Sprintf(format, args...), "SECRET", fileSecret))
}

func TestParseFile(t *testing.T) {
	for name, c := range map[string]struct {
		text    string
		current ID
		ids     string
	}{
		"least":            {`{"keys":[{"id":"a","secret":"SECRET"}]}`, "", "a"},
		"no current":       {`{"current":"","keys":[{"id":"a","secret":"SECRET"}]}`, "", "a"},
		"current":          {`{"keys":[{"secret":"SECRET","id":"a"},{"id":"b","secret":"SECRET"}],"current":"b"}`, "b", "a b"},
		"white space":      {"\n {\t\"current\" :\r\n \"a\" , \"keys\" : [ { \"id\" : \"a\" , \"secret\" : \"SECRET\" } ] } \n", "a", "a"},
		"escaped slash":    {`{"keys":[{"id":"a\/b","secret":"` + strings.ReplaceAll(fileSecret, "/", `\/`) + `"}]}`, "", "a/b"},
		"escaped ID":       {`{"current":"\u0061","keys":[{"id":"\u0061","secret":"SECRET"}]}`, "a", "a"},
		"escaped name":     {`{"\u006beys":[{"i\u0064":"a","secret":"SECRET"}]}`, "", "a"},
		"times":            {`{"keys":[{"id":"a","secret":"SECRET","created":"2026-01-02T03:04:05Z","expires":"2026-01-02T04:04:05.5+01:00"}]}`, "", "a"},
		"times not given":  {`{"keys":[{"id":"a","secret":"SECRET","created":null,"expires":null}]}`, "", "a"},
		"created the same": {`{"keys":[{"id":"a","secret":"SECRET","created":"2026-01-02T03:04:05Z","expires":"2026-01-02T03:04:05Z"}]}`, "", "a"},
	} {
		set, err := parseFile(fileOf("%s", c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		ids := ""
		for _, k := range set.Keys {
			ids += " " + string(k.ID())
			if f, err := k.fingerprint(); err != nil || !f.equal(mustPrint(t)) {
				t.Errorf("%s: %s has another secret: %v", name, k.ID(), err)
			}
		}
		if set.Current != c.current || strings.TrimSpace(ids) != c.ids {
			t.Errorf("%s: current %q, IDs %q", name, set.Current, ids)
		}
	}
}

func mustPrint(t *testing.T) fingerprint {
	t.Helper()
	secret, err := base64.StdEncoding.DecodeString(fileSecret)
	if err != nil {
		t.Fatal(err)
	}
	k, err := New("k", secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := k.fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestParseFileRefuses(t *testing.T) {
	const key = `{"id":"a","secret":"SECRET"}`
	for text, says := range map[string]string{
		``:                                     "want an object",
		`null`:                                 "want an object",
		`[` + key + `]`:                        "want an object",
		`{}`:                                   "no keys",
		`{"keys":[]}`:                          "no keys",
		`{"current":"a"}`:                      "no keys",
		`{"keys":null}`:                        "want an array",
		`{"keys":{}}`:                          "want an array",
		`{"keys":["a"]}`:                       "want an object",
		`{"keys":[` + key:                      "want a comma or the end of the array",
		`{"keys":[` + key + `,]}`:              "want an object",
		`{"keys":[` + key + `]`:                "want a comma or the end of the object",
		`{"keys":[` + key + `],}`:              "want a string",
		`{"keys":[` + key + `]}}`:              "something behind",
		`{"keys":[` + key + `]} x`:             "something behind",
		"{\"keys\":[" + key + "]}\x00":         "something behind",
		`{"keys":[` + key + `] "current":"a"}`: "want a comma",
		`{"keys" [` + key + `]}`:               "want a colon",
		`{keys:[` + key + `]}`:                 "want a string",
		`{"keys":[` + key + `],"keys":[]}`:     "twice",
		`{"keys":[` + key + `],"\x":1}`:        "malformed string",
		`{"keys":[{"id":"a","secret":"SECRET","queues":[1]}]}`:                                                      "want a string",
		`{"keys":[` + key + `],"\u006beys":[]}`:                                                                     "twice",
		`{"Keys":[` + key + `]}`:                                                                                    "unknown name",
		`{"keys":[` + key + `],"version":1}`:                                                                        "unknown name",
		`{"keys":[` + key + `],"current":"b"}`:                                                                      `"b" is not among`,
		`{"keys":[` + key + `],"current":null}`:                                                                     "want a string",
		`{"keys":[` + key + `],"current":1}`:                                                                        "want a string",
		`{"keys":[` + key + `],"current":"a`:                                                                        "does not end",
		`{"keys":[` + key + `],"current":"a\`:                                                                       "does not end",
		`{"keys":[` + key + `],"current":"\x"}`:                                                                     "malformed string",
		"{\"keys\":[" + key + "],\"current\":\"\n":                                                                  "does not end",
		"{\"keys\":[" + key + "],\"current\":\"\n\"}":                                                               "malformed string",
		`{"keys":[` + key + `,` + key + `]}`:                                                                        "a is there twice",
		`{"keys":[{}]}`:                                                                                             "line 1: keys: invalid key: an ID of 0 bytes",
		`{"keys":[{"id":"a","sender":"s","secret":"SECRET"}]}`:                                                      "sender and sender_secret",
		`{"keys":[{"id":"a","sender_secret":"SECRET"}]}`:                                                            "sender and sender_secret",
		`{"keys":[{"id":"a","sender":"s"}]}`:                                                                        "sender and sender_secret",
		`{"keys":[{"id":"a","sender":"s","secret":"SECRET","sender_secret":"SECRET"}]}`:                             "sender and sender_secret",
		`{"keys":[{"id":"a","sender":"","secret":"SECRET"}]}`:                                                       "sender and sender_secret",
		`{"keys":[{"id":"a","sender":"","sender_secret":"SECRET"}]}`:                                                "sender ID",
		`{"keys":[{"id":"a","sender":"a b","sender_secret":"SECRET"}]}`:                                             "sender ID",
		`{"keys":[{"id":"a","secret":"SECRET","queues":"q"}]}`:                                                      "want an array",
		`{"keys":[{"id":"a","secret":"SECRET","queues":[""]}]}`:                                                     "queue 1",
		`{"keys":[{"id":"a","secret":"SECRET","queues":["q","q"]}]}`:                                                "twice",
		`{"keys":[{"id":"a"}]}`:                                                                                     "a secret of 0 bytes",
		`{"keys":[{"secret":"SECRET"}]}`:                                                                            "an ID of 0 bytes",
		`{"keys":[{"id":"ä","secret":"SECRET"}]}`:                                                                   "byte 0 of the ID",
		"{\"keys\":[{\"id\":\"\xff\",\"secret\":\"SECRET\"}]}":                                                      "byte 0 of the ID",
		`{"keys":[{"id":"a","ID":"a","secret":"SECRET"}]}`:                                                          "unknown name",
		`{"keys":[{"id":"a","id":"a","secret":"SECRET"}]}`:                                                          "twice",
		`{"keys":[{"id":1,"secret":"SECRET"}]}`:                                                                     "want a string",
		`{"keys":[{"id":"a","secret":1}]}`:                                                                          "want a string",
		`{"keys":[{"id":"a","secret":"?"}]}`:                                                                        "not padded standard base64",
		`{"keys":[{"id":"a","secret":"SECRET\n"}]}`:                                                                 "not padded standard base64",
		"{\"keys\":[{\"id\":\"a\",\"secret\":\"SECRET\n\"}]}":                                                       "not padded standard base64",
		`{"keys":[{"id":"a","secret":"` + "SECRET"[:5] + `"}]}`:                                                     "not padded standard base64",
		`{"keys":[{"id":"a","secret":"AAAA"}]}`:                                                                     "a secret of 3 bytes: use 32",
		`{"keys":[{"id":"a","secret":"` + strings.Repeat("A", 43) + `="}]}`:                                         "all zeroes",
		`{"keys":[{"id":"a","secret":"SECRET","created":"2026-01-02"}]}`:                                            "RFC 3339",
		`{"keys":[{"id":"a","secret":"SECRET","created":"2026-1-2T3:4:5Z"}]}`:                                       "RFC 3339",
		`{"keys":[{"id":"a","secret":"SECRET","created":""}]}`:                                                      "RFC 3339",
		`{"keys":[{"id":"a","secret":"SECRET","expires":1}]}`:                                                       "want a string",
		`{"keys":[{"id":"a","secret":"SECRET","expires":nil}]}`:                                                     "want a string",
		`{"keys":[{"id":"a","secret":"SECRET","expires":nullx}]}`:                                                   "want a comma",
		"{\n\"keys\":[\n{\"id\":\"a\",\n\"secret\":\"SECRET\",\n\"x\":1}]}":                                         "line 5: an unknown name",
		"{\n\"keys\":[\n" + key + ",\n{\"id\":\"b\",\n\"secret\":\"AAAA\"}]\n}":                                     "line 4: keys: invalid key: b",
		`{"keys":[{"id":"a","secret":"SECRET","created":"2026-01-02T03:04:05Z","expires":"2026-01-02T03:04:04Z"}]}`: "expires before",
	} {
		set, err := parseFile(fileOf("%s", text))
		if set != nil || !errors.Is(err, ErrInvalidKey) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v; want an error that says %q", text, set, err, says)
		} else if strings.Contains(err.Error(), fileSecret[:8]) {
			t.Errorf("%s: the error shows the secret: %v", text, err)
		}
	}
}

// TestFileHasNoTimesThatAKeyHasNot: a reader of the file would take the zero Time for a date.
func TestFileHasNoTimesThatAKeyHasNot(t *testing.T) {
	b, err := encodeFile(&Set{Keys: []*Key{testKey(t, "a", 1)}})
	if err != nil || bytes.Contains(b, []byte("created")) || bytes.Contains(b, []byte("expires")) {
		t.Errorf("%s, %v; want no times", b, err)
	}
}

// TestFileAtItsBound: a file of as many bytes as are read is written, and none of one more.
func TestFileAtItsBound(t *testing.T) {
	const each = 10 // bytes of an ID
	set := new(Set)
	for i := range 20000 {
		set.Keys = append(set.Keys, testKey(t, ID(fmt.Sprintf("%0*d", each, i)), 1))
	}
	size := func(n int) int {
		b, err := encodeFile(&Set{Keys: set.Keys[:n]})
		if err != nil {
			t.Fatal(err)
		}
		return len(b)
	}
	one := size(2) - size(1)
	n := 1 + (maxFile-size(1))/one
	rest := maxFile - size(n) // less than one, so that it has room in two IDs
	set.Keys = set.Keys[:n]
	for i, more := range []int{rest / 2, rest - rest/2} {
		set.Keys[i] = testKey(t, ID(fmt.Sprintf("%0*d", each+more, i)), 1)
	}
	b, err := encodeFile(set)
	if err != nil || len(b) != maxFile {
		t.Fatalf("%d bytes, %v; want %d", len(b), err, maxFile)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if read, _, err := readFile(path, ownerOrGroup); err != nil || len(read.Keys) != n {
		t.Errorf("what was written is not read: %v", err)
	}
	set.Keys[2] = testKey(t, ID(fmt.Sprintf("%0*d", each+1, 2)), 1)
	if b, err := encodeFile(set); !errors.Is(err, ErrInvalidKey) || b != nil {
		t.Errorf("one byte more: %d bytes, %v; want %v", len(b), err, ErrInvalidKey)
	}
}

// seenReader keeps the buffer that it reads into.
type seenReader struct {
	io.Reader
	into []byte
}

func (r *seenReader) Read(p []byte) (int, error) {
	if r.into == nil {
		r.into = p
	}
	return r.Reader.Read(p)
}

// TestReadWhole: a file that has another size than before, or that cannot be read to its end, is
// refused, and what was read of it is cleared.
func TestReadWhole(t *testing.T) {
	broken := errors.New("input/output error")
	for name, c := range map[string]struct {
		file io.Reader
		size int
		says string // in the error; empty: none
	}{
		"as it was":        {strings.NewReader("text"), 4, ""},
		"in parts":         {iotest.OneByteReader(strings.NewReader("text")), 4, ""},
		"with its end":     {iotest.DataErrReader(strings.NewReader("text")), 4, ""},
		"empty":            {strings.NewReader(""), 0, ""},
		"shorter":          {strings.NewReader("tex"), 4, "it changed"},
		"emptied":          {strings.NewReader(""), 4, "it changed"},
		"longer":           {strings.NewReader("texts"), 4, "it changed"},
		"no longer empty":  {strings.NewReader("text"), 0, "it changed"},
		"fails at once":    {iotest.ErrReader(broken), 4, "input/output"},
		"fails in it":      {io.MultiReader(strings.NewReader("te"), iotest.ErrReader(broken)), 4, "input/output"},
		"fails at its end": {io.MultiReader(strings.NewReader("text"), iotest.ErrReader(broken)), 4, "input/output"},
		"of size 0, fails": {iotest.ErrReader(broken), 0, "input/output"},
	} {
		r := &seenReader{Reader: c.file}
		data, err := readWhole(r, c.size)
		switch {
		case c.says == "" && (err != nil || len(data) != c.size || string(data) != "text"[:c.size]):
			t.Errorf("%s: %q, %v", name, data, err)
		case c.says != "" && (data != nil || err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %q, %v; want an error that says %q", name, data, err, c.says)
		case c.says != "" && !bytes.Equal(r.into, make([]byte, len(r.into))):
			t.Errorf("%s: %q is left in memory", name, r.into)
		}
	}
}

// TestParseFileZeroes: keys of a file that is refused do not stay behind.
func TestParseFileZeroes(t *testing.T) {
	set := &Set{Keys: []*Key{testKey(t, "a", 1), testKey(t, "b", 2)}}
	set.destroy()
	for _, k := range set.Keys {
		if k.Err() == nil {
			t.Errorf("%s lives", k.ID())
		}
	}
}

// FuzzFile: no input panics; what is accepted is JSON that encoding/json reads
// the same way, and is written and read again without change.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		`{"keys":[{"id":"a","secret":"SECRET"}]}`,
		`{"current":"b","keys":[{"id":"a\/b","secret":"SECRET","created":"2026-01-02T03:04:05Z"},{"id":"b","secret":"SECRET","expires":null}]}`,
		"{\n\t\"current\" : \"\\u0061\",\r\"keys\":[ {\"expires\":\"2026-01-02T03:04:05.25+01:00\",\"id\":\"a\",\"secret\":\"SECRET\"}]}\n",
		`{"keys":[{"id":"a","secret":"SECRET","secret":"SECRET"}]}`,
		`{"keys":[{"id":"\ud800","secret":"\\\""}]}`,
		`{`, `{"keys":[[`, `{"current":"\`,
	} {
		f.Add(fileOf("%s", text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := parseFile(bytes.Clone(data))
		if err != nil {
			if !errors.Is(err, ErrInvalidKey) || len(err.Error()) > 1000 {
				t.Errorf("error: %v", err)
			}
			return
		}
		var other struct {
			Current ID `json:"current"`
			Keys    []struct {
				ID           ID        `json:"id"`
				Sender       string    `json:"sender"`
				Secret       []byte    `json:"secret"`
				SenderSecret []byte    `json:"sender_secret"`
				Queues       []string  `json:"queues"`
				Created      time.Time `json:"created"`
				Expires      time.Time `json:"expires"`
			} `json:"keys"`
		}
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		if err := d.Decode(&other); err != nil {
			t.Fatalf("encoding/json refuses it: %v", err)
		}
		if other.Current != set.Current || len(other.Keys) != len(set.Keys) {
			t.Fatalf("encoding/json reads %+v", other)
		}
		again, err := encodeFile(set)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(again) {
			t.Fatalf("written: %s", again)
		}
		reread, err := parseFile(again)
		if err != nil || reread.Current != set.Current || len(reread.Keys) != len(set.Keys) {
			t.Fatalf("read again: %+v, %v", reread, err)
		}
		for i, k := range set.Keys {
			o, r := other.Keys[i], reread.Keys[i]
			same, err := newKey(o.ID, o.Sender, slices.Concat(o.Secret, o.SenderSecret), &Options{Created: o.Created, Expires: o.Expires, Queues: o.Queues})
			if err != nil || !same.Equal(k) || same.ID() != k.ID() || !same.Alike(k) {
				t.Errorf("encoding/json reads key %d otherwise: %v", i, err)
			}
			if !r.Equal(k) || !r.Alike(k) {
				t.Errorf("key %d is not the same when read again", i)
			}
		}
	})
}
