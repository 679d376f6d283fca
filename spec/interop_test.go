package spec_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/spec"
)

// node runs the implementation of the specification for Node.js in the folder
// interop, which was written from the document alone, over the vectors. It returns
// a decoder of what it prints. The test is skipped where Node.js is missing,
// unless QRT_REQUIRE_PEERS=1.
func node(t *testing.T, command string) *json.Decoder {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("QRT_REQUIRE_PEERS") == "1" {
			t.Fatal("Node.js is missing: install node 20 or later")
		}
		t.Skip("Node.js is missing: the second implementation of the specification is not run")
	}
	// The go command's cache of test results knows of files that the test itself
	// opens, and not of those that node reads.
	for _, name := range []string{"interop/qre1.mjs", "interop/vectors.mjs"} {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), path, "interop/vectors.mjs", command, "vectors")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, stderr.Bytes())
	}
	return json.NewDecoder(bytes.NewReader(out))
}

// verdict is what the second implementation says of a vector.
type verdict struct {
	Name, Verdict                                   string
	EncryptedAt, NotBefore, ExpiresAt               string
	KeyID, Origin                                   string
	Bound                                           []string
	ReplayID, MessageKey, AdditionalData, Plaintext string
	Envelope                                        string
}

// The second implementation comes to the verdict of every vector, and to each of
// the values in it.
func TestInteropOpen(t *testing.T) {
	list := load(t)
	out := node(t, "open")
	for _, v := range list {
		var got verdict
		if err := out.Decode(&got); err != nil {
			t.Fatal(err)
		}
		want := verdict{Name: v.Name, Verdict: string(v.Expect)}
		if v.Expect == spec.Open {
			want.EncryptedAt, want.NotBefore, want.ExpiresAt = strconv.FormatInt(v.EncryptedAt, 10), strconv.FormatInt(v.NotBefore, 10), strconv.FormatInt(v.ExpiresAt, 10)
			want.KeyID, want.Origin = hex.EncodeToString([]byte(v.KeyID)), hex.EncodeToString([]byte(v.Origin))
			want.Bound = []string{}
			for _, name := range v.Bound {
				want.Bound = append(want.Bound, hex.EncodeToString([]byte(name)))
			}
			want.ReplayID, want.MessageKey = hex.EncodeToString(v.ReplayID), hex.EncodeToString(v.MessageKey)
			want.AdditionalData, want.Plaintext = hex.EncodeToString(v.AdditionalData), hex.EncodeToString(v.Plaintext)
		}
		a, errA := json.Marshal(got)
		b, errB := json.Marshal(want)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s:\nthe second implementation says %s\nrecorded is %s", v.Name, a, b)
		}
	}
	if out.More() {
		t.Error("the second implementation judged more vectors than there are")
	}
}

// What the second implementation seals opens here.
func TestInteropSeal(t *testing.T) {
	list := load(t)
	out := node(t, "seal")
	o := envelope.NewOpener(nil)
	opened := 0
	for _, v := range list {
		if v.Expect != spec.Open {
			continue
		}
		var got verdict
		if err := out.Decode(&got); err != nil {
			t.Fatal(err)
		}
		body, err := hex.DecodeString(got.Envelope)
		if err != nil || got.Name != v.Name {
			t.Fatalf("%s: %s, %v", v.Name, got.Name, err)
		}
		m, err := envelope.Parse(body)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		data, open := v.AssociatedData, o.OpenApp
		if v.Domain == spec.Queue {
			open = o.Open
			if data, err = envelope.AppendContext(nil, arrived(v), m.Bound); err != nil {
				t.Errorf("%s: %v", v.Name, err)
				continue
			}
			if len(m.Bound) != len(v.Attributes) {
				t.Errorf("%s: %d attributes of %d are bound", v.Name, len(m.Bound), len(v.Attributes))
			}
		}
		plaintext, err := open(nil, &m, masterKey(v.Key), data)
		if err != nil || !bytes.Equal(plaintext, v.Plaintext) {
			t.Errorf("%s: %x, %v", v.Name, plaintext, err)
			continue
		}
		opened++
	}
	if opened < 20 {
		t.Errorf("only %d messages opened", opened)
	}
}

func load(t *testing.T) []*spec.Vector {
	t.Helper()
	list, err := spec.Vectors()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Fatal("no vectors")
	}
	return list
}

func arrived(v *spec.Vector) *envelope.Context {
	c := &envelope.Context{MessageID: v.MessageID, SessionID: v.SessionID, ContentType: v.ContentType, CorrelationID: v.CorrelationID, Attributes: make(map[string]string)}
	for _, a := range v.Attributes {
		c.Attributes[a.Name] = a.Value
	}
	return c
}

// masterKey is a Deriver. It is a string, so that the same key is the same one.
type masterKey string

func (k masterKey) Derive(info []byte) (okm [64]byte, err error) {
	out, err := hkdf.Expand(sha256.New, []byte(k), string(info), len(okm))
	copy(okm[:], out)
	return okm, err
}
