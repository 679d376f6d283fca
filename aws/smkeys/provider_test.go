package smkeys

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
)

// jsonKey is the JSON form of a key.
func jsonKey(m keytest.Material) string {
	v := map[string]any{"id": m.ID, "secret": base64.StdEncoding.EncodeToString(m.Secret)}
	if !m.Created.IsZero() {
		v["created"] = m.Created
	}
	if !m.Expires.IsZero() {
		v["expires"] = m.Expires
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func ids(c keytest.Content) []keys.ID {
	out := []keys.ID{}
	for _, m := range c.Keys {
		out = append(out, m.ID)
	}
	return out
}

// fill makes the server hold c at once, a secret for each key.
func (s *server) fill(name string, c keytest.Content) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other, sec := range s.secrets {
		if rest, ok := strings.CutPrefix(other, name+"/"); ok && !slices.Contains(ids(c), keys.ID(rest)) {
			sec.deleted = true
		}
	}
	for _, m := range c.Keys {
		text := jsonKey(m)
		s.addLocked(name+"/"+string(m.ID), &version{id: "v", text: &text, stages: []string{stageCurrent}})
	}
	b, err := json.Marshal(pointer{Current: c.Current, Valid: ids(c)})
	if err != nil {
		panic(err)
	}
	text := string(b)
	delete(s.secrets, name) // no stages of earlier pointers
	s.addLocked(name, &version{id: "p", text: &text, stages: []string{stageCurrent}})
}

// fillVersions makes the server hold c at once, a version for each key.
func (s *server) fillVersions(name string, c keytest.Content) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.secrets, name)
	for _, m := range c.Keys {
		text := jsonKey(m)
		s.addLocked(name, &version{id: string(m.ID), text: &text, stages: []string{"KEEP-" + string(m.ID)}})
	}
	s.secrets[name].promote(string(c.Current))
}

func suite(t *testing.T, layout Layout, wrap func(*testing.T, keys.Provider) keys.Provider, settle func()) {
	keytest.Run(t, keytest.Options{
		Bubble:        true,
		AlwaysCurrent: layout == Versions,
		Open: func(t *testing.T, c keytest.Content) keytest.Backing {
			s := newServer()
			fill := s.fill
			if layout == Versions {
				fill = s.fillVersions
				s.page = 2
			}
			fill("qrt/pulls", c)
			return keytest.Backing{
				Provider: wrap(t, s.provider(t, "qrt/pulls", &Options{Layout: layout})),
				Replace: func(c keytest.Content) error {
					fill("qrt/pulls", c)
					settle()
					return nil
				},
				Break: func(broken bool) {
					if s.fail(""); broken {
						s.fail("InternalServiceError")
					}
					settle()
				},
			}
		},
	})
}

func TestSuite(t *testing.T) {
	for name, layout := range map[string]Layout{"secrets": Secrets, "versions": Versions} {
		t.Run(name, func(t *testing.T) {
			suite(t, layout, func(_ *testing.T, p keys.Provider) keys.Provider { return p }, func() {})
		})
		t.Run(name+", cached", func(t *testing.T) {
			suite(t, layout, cached, func() { time.Sleep(time.Minute) })
		})
	}
}

func cached(t *testing.T, p keys.Provider) keys.Provider {
	t.Helper()
	c, err := keys.NewCached(p, &keys.CachedOptions{TTL: 20 * time.Second, ListTTL: 10 * time.Second, MaxStale: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func secretOf(b byte) []byte { return bytes.Repeat([]byte{b}, keys.Size) }

// A rotation by the stages of a pointer that is a bare ID, with no restart.
func TestRotationByPointer(t *testing.T) {
	s := newServer()
	p := s.provider(t, "k", nil)
	state := func(current keys.ID, valid ...keys.ID) {
		t.Helper()
		id, err := p.CurrentKeyID(t.Context())
		if err != nil || id != current {
			t.Errorf("current %q, %v, want %q", id, err, current)
		}
		list, err := p.ValidKeyIDs(t.Context())
		slices.Sort(list)
		if err != nil || !slices.Equal(list, valid) {
			t.Errorf("valid %q, %v, want %q", list, err, valid)
		}
		for _, id := range valid {
			if _, err := p.GetKey(t.Context(), id); err != nil {
				t.Errorf("GetKey(%s): %v", id, err)
			}
		}
	}
	for i, id := range []string{"a", "b", "c"} {
		s.putBinary("k/"+id, "v", secretOf(byte(i+1)), stageCurrent)
	}
	s.put("k", "1", " a\n", stageCurrent)
	state("a", "a")
	_, err := p.GetKey(t.Context(), "b")
	if !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("a key that no pointer names: %v", err)
	}
	s.put("k", "2", "b", stagePending) // distributed
	state("a", "a", "b")
	s.promote("k", "2") // made current
	state("b", "a", "b")
	s.put("k", "3", "c", stagePending)
	state("b", "a", "b", "c")
	s.promote("k", "3") // a is retired
	state("c", "b", "c")
	if _, err := p.GetKey(t.Context(), "a"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("a retired key: %v", err)
	}
}

// The service's own rotation of one secret.
func TestRotationByVersions(t *testing.T) {
	s := newServer()
	p := s.provider(t, "k", &Options{Layout: Versions})
	const v1, v2, v3 = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002", "33333333-0000-4000-8000-000000000003"
	s.putBinary("k", v1, secretOf(1), stageCurrent)
	s.put("k", v2, base64.StdEncoding.EncodeToString(secretOf(2)), stagePending)
	if id, err := p.CurrentKeyID(t.Context()); err != nil || id != v1 {
		t.Errorf("%q, %v", id, err)
	}
	k, err := p.GetKey(t.Context(), v2)
	if err != nil || k.Created().IsZero() {
		t.Fatalf("key %v, %v; want one with its creation time", k, err)
	}
	s.promote("k", v2)
	if id, err := p.CurrentKeyID(t.Context()); err != nil || id != v2 {
		t.Errorf("%q, %v", id, err)
	}
	// A version that no key ID can name is none of a message, and no reason to
	// stop them all.
	s.put("k", "made by hand, with a token of spaces", "x", "MINE")
	if list, err := p.ValidKeyIDs(t.Context()); err != nil || fmt.Sprint(list) != fmt.Sprint([]keys.ID{v1, v2}) {
		t.Errorf("%q, %v", list, err)
	}
	if same, err := p.GetKey(t.Context(), v2); err != nil || same != k {
		t.Errorf("the key is another: %v", err)
	}
	s.putBinary("k", v3, secretOf(3), stageCurrent)
	if _, err := p.GetKey(t.Context(), v1); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("a version without a label: %v", err)
	}
	if list, err := p.ValidKeyIDs(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("%q, %v", list, err)
	}
}

// Whatever is not 32 bytes is no key, and no error shows any of it.
func TestMaterial(t *testing.T) {
	const leak = "TOPSECRET"
	for name, v := range map[string]string{
		"short":           base64.StdEncoding.EncodeToString([]byte(leak)),
		"long":            base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(leak), 9)),
		"zeroes":          base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"not base64":      leak + "!",
		"URL alphabet":    base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, 32)),
		"broken JSON":     `{"secret":"` + leak,
		"another key's":   `{"id":"` + leak + `","secret":"` + base64.StdEncoding.EncodeToString(secretOf(1)) + `"}`,
		"no secret":       `{"id":"a"}`,
		"two kinds":       `{"secret":"` + base64.StdEncoding.EncodeToString(secretOf(1)) + `","sender":"` + leak + `","sender_secret":"` + base64.StdEncoding.EncodeToString(secretOf(1)) + `"}`,
		"no sender":       `{"sender_secret":"` + base64.StdEncoding.EncodeToString(secretOf(1)) + `"}`,
		"sender ID":       `{"sender":"","sender_secret":"` + base64.StdEncoding.EncodeToString(secretOf(1)) + `"}`,
		"expires earlier": `{"secret":"` + base64.StdEncoding.EncodeToString(secretOf(1)) + `","created":"2025-01-02T00:00:00Z","expires":"2025-01-01T00:00:00Z"}`,
	} {
		s := newServer()
		s.put("k", "1", "a", stageCurrent)
		s.put("k/a", "1", v, stageCurrent)
		k, err := s.provider(t, "k", nil).GetKey(t.Context(), "a")
		if k != nil || !errors.Is(err, keys.ErrInvalidKey) {
			t.Errorf("%s: %v, %v", name, k, err)
			continue
		}
		if strings.Contains(err.Error(), leak) || strings.Contains(err.Error(), v) {
			t.Errorf("%s: the error holds the value: %v", name, err)
		}
		if !strings.Contains(err.Error(), "k/a") {
			t.Errorf("%s: the error does not name the secret: %v", name, err)
		}
	}
}

// A secret that was put where the pointer belongs stays out of errors.
func TestPointerThatIsASecret(t *testing.T) {
	s := newServer()
	secret := base64.StdEncoding.EncodeToString(secretOf(0xfe))
	for _, v := range []string{secret, `{"current":"` + secret + `"}`, `{"valid":["` + secret + `"]}`, `{"valid":"` + secret} {
		s.put("k", "1", v, stageCurrent)
		p := s.provider(t, "k", nil)
		for call, f := range map[string]func() error{
			"CurrentKeyID": func() error { _, err := p.CurrentKeyID(t.Context()); return err },
			"ValidKeyIDs":  func() error { _, err := p.ValidKeyIDs(t.Context()); return err },
			"GetKey":       func() error { _, err := p.GetKey(t.Context(), "a"); return err },
		} {
			err := f()
			if !errors.Is(err, keys.ErrInvalidKey) || strings.Contains(err.Error(), secret[:20]) {
				t.Errorf("%s: %v", call, err)
			}
		}
	}
}

// A colon, which Secrets Manager does not take, is a plus.
func TestColon(t *testing.T) {
	s := newServer()
	s.put("k", "1", "2026:a", stageCurrent)
	s.putBinary("k/2026+a", "1", secretOf(1), stageCurrent)
	if _, err := s.provider(t, "k", nil).GetKey(t.Context(), "2026:a"); err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	s := newServer()
	s.put("k", "1", "a", stageCurrent)
	s.putBinary("k/a", "1", secretOf(1), stageCurrent)
	p := s.provider(t, "k", nil)
	for code, want := range map[string]string{
		"AccessDeniedException":       "grant secretsmanager:GetSecretValue",
		"InternalServiceError":        "InternalServiceError",
		"ThrottlingException":         "ThrottlingException",
		"DecryptionFailure":           "DecryptionFailure",
		"UnrecognizedClientException": "UnrecognizedClientException",
	} {
		s.fail(code)
		_, err := p.GetKey(t.Context(), "a")
		if !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, keys.ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", code, err)
		}
	}
	s.fail("")
	s.remove("k/a")
	if _, err := p.GetKey(t.Context(), "a"); !errors.Is(err, keys.ErrNotFound) || !strings.Contains(err.Error(), "k/a") {
		t.Errorf("marked for deletion: %v", err)
	}
	for _, layout := range []Layout{Secrets, Versions} {
		p := s.provider(t, "other", &Options{Layout: layout})
		for call, f := range map[string]func() error{
			"CurrentKeyID": func() error { _, err := p.CurrentKeyID(t.Context()); return err },
			"ValidKeyIDs":  func() error { _, err := p.ValidKeyIDs(t.Context()); return err },
			"GetKey":       func() error { _, err := p.GetKey(t.Context(), "a"); return err },
		} {
			if err := f(); !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, keys.ErrNotFound) || !strings.Contains(err.Error(), "other") {
				t.Errorf("no such pointer or secret: %s: %v", call, err)
			}
		}
	}

	cfg := s.config()
	cfg.HTTPClient = nil
	cfg.BaseEndpoint = aws.String("http://127.0.0.1:1")
	p, err := New(cfg, "k", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.CurrentKeyID(t.Context()); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("without a server: %v", err)
	}
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("no profile")
	})
	if p, err = New(cfg, "k", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.CurrentKeyID(t.Context()); !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("no credentials: %v", err)
	}
}

// A flood of forged key IDs costs a handful of calls: for unknown IDs the list is
// asked for once in 30 seconds, and no ID that it does not have.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.put("k", "1", "a", stageCurrent)
		s.putBinary("k/a", "1", secretOf(1), stageCurrent)
		c := cached(t, s.provider(t, "k", nil))
		for i := range 100_000 {
			if _, err := c.GetKey(t.Context(), keys.ID(fmt.Sprintf("forged-%d", i))); !errors.Is(err, keys.ErrNotFound) {
				t.Fatal(err)
			}
		}
		if n := s.total(); n != 6 {
			t.Errorf("%d calls, want 6: the three stages of the pointer, and one look at newer ones", n)
		}
	})
}

func TestURL(t *testing.T) {
	region, name, o, err := parseURL("awssm://eu-west-1/qrt/pulls?layout=versions&endpoint=http%3A%2F%2F127.0.0.1%3A1")
	if err != nil || region != "eu-west-1" || name != "qrt/pulls" || o.Layout != Versions || o.Endpoint != "http://127.0.0.1:1" {
		t.Errorf("%q, %q, %+v, %v", region, name, o, err)
	}
	const secret = "s3cr3t"
	for _, u := range []string{
		"awssm://eu-west-1/", "awssm://eu-west-1", "https://r/k", "awssm://u:" + secret + "@r/k", "awssm://r:1/k", "awssm://r/k#" + secret, "awssm://%zz",
		"awssm://r/k?layout=" + secret, "awssm://r/k?layout=versions&layout=secrets", "awssm://r/k?endpoint=" + secret, "awssm://r/k?x=" + secret, "awssm://r/k?%zz",
		"awssm://r/a%20b", "awssm://r/" + strings.Repeat("k", 448),
	} {
		_, _, _, err := parseURL(u)
		if err == nil {
			t.Errorf("%s is accepted", u)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error repeats a value: %v", err)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test-secret-of-forty-characters-as-of-aws")
	p, err := Open(t.Context(), "awssm://us-east-1/k?endpoint=http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.CurrentKeyID(t.Context()); !errors.Is(err, keys.ErrUnavailable) {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	if _, err := New(aws.Config{}, "k", nil); err == nil {
		t.Error("no region is accepted")
	}
	cfg := aws.Config{Region: "r"}
	if _, err := New(cfg, "k", &Options{Layout: 2}); err == nil {
		t.Error("an unknown layout is accepted")
	}
	if _, err := New(cfg, "", nil); err == nil {
		t.Error("no name is accepted")
	}
}
