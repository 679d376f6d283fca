package sessionkey_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/sessionkey"
)

func pullRequest() *sessionkey.Message {
	return &sessionkey.Message{
		Body: []byte(`{"action":"opened","number":42,"pull_request":{"url":"https://api.github.com/repos/octo/hello/pulls/42",` +
			`"number":42,"title":"Say \"hello\": {[","draft":false,"labels":[{"name":"a"},{"name":"b"}],"milestone":null,"body":""},` +
			`"repository":{"id":186853002,"full_name":"octo/hello","private":true}}`),
		ContentType: "application/json; charset=utf-8",
		Attributes:  map[string]string{"event": "pull_request", "empty": ""},
	}
}

func want(t *testing.T, s sessionkey.Strategy, m *sessionkey.Message, id string) {
	t.Helper()
	if got, err := s.SessionID(m); err != nil || got != id {
		t.Errorf("%#v: %q, %v; want %q", s, got, err, id)
	}
}

func refused(t *testing.T, s sessionkey.Strategy, m *sessionkey.Message, is error, says string) {
	t.Helper()
	if got, err := s.SessionID(m); got != "" || !errors.Is(err, is) || !strings.Contains(err.Error(), says) {
		t.Errorf("%#v: %q, %v; want %v that says %q", s, got, err, is, says)
	}
}

func TestNone(t *testing.T) { want(t, sessionkey.None{}, pullRequest(), "") }

func TestAttribute(t *testing.T) {
	m := pullRequest()
	want(t, sessionkey.Attribute("event"), m, "pull_request")
	want(t, sessionkey.Attribute("empty"), m, "")
	want(t, sessionkey.Attribute("none"), m, "")
	want(t, sessionkey.Attribute("none"), &sessionkey.Message{}, "")
	refused(t, sessionkey.Attribute(""), m, sessionkey.ErrStrategy, "no name")
	m.Attributes["event"] = "two\nlines"
	refused(t, sessionkey.Attribute("event"), m, sessionkey.ErrMessage, "control character at byte 3")
}

func TestFunc(t *testing.T) {
	m := pullRequest()
	want(t, sessionkey.Func(func(m *sessionkey.Message) (string, error) { return m.Attributes["event"] + "!", nil }), m, "pull_request!")
	mine := errors.New("mine")
	refused(t, sessionkey.Func(func(*sessionkey.Message) (string, error) { return "lost", mine }), m, mine, "mine")
	refused(t, sessionkey.Func(func(*sessionkey.Message) (string, error) { return "\xff", nil }), m, sessionkey.ErrMessage, "not UTF-8")
	refused(t, sessionkey.Func(nil), m, sessionkey.ErrStrategy, "use None")
}

func TestFallback(t *testing.T) {
	m := pullRequest()
	want(t, sessionkey.Fallback{
		sessionkey.Field("issue.number"), sessionkey.Attribute("none"), sessionkey.Field("pull_request.number"), sessionkey.Attribute("event"),
	}, m, "42")
	want(t, sessionkey.Fallback{sessionkey.Field("issue.number"), sessionkey.None{}}, m, "")
	refused(t, sessionkey.Fallback{}, m, sessionkey.ErrStrategy, "empty")
	refused(t, sessionkey.Fallback{sessionkey.None{}, nil}, m, sessionkey.ErrStrategy, "strategy 2")
	// An error is not the same as no session.
	refused(t, sessionkey.Fallback{sessionkey.Field("pull_request"), sessionkey.Attribute("event")}, m, sessionkey.ErrMessage, `field "pull_request"`)
}

func TestComposite(t *testing.T) {
	m := pullRequest()
	name, number := sessionkey.Field("repository.full_name"), sessionkey.Field("number")
	want(t, sessionkey.Composite{name, number}, m, "octo/hello:42")
	want(t, sessionkey.Composite{name}, m, "octo/hello")
	want(t, sessionkey.Composite{name, sessionkey.Field("issue.number")}, m, "")
	want(t, sessionkey.Composite{sessionkey.Attribute("none"), name}, m, "")
	refused(t, sessionkey.Composite{}, m, sessionkey.ErrStrategy, "empty")
	refused(t, sessionkey.Composite{name, nil}, m, sessionkey.ErrStrategy, "strategy 2")
	refused(t, sessionkey.Composite{name, sessionkey.Field("pull_request")}, m, sessionkey.ErrMessage, `field "pull_request"`)

	m.Attributes = map[string]string{"a": strings.Repeat("a", 64), "b": strings.Repeat("b", 63), "c": strings.Repeat("c", 62) + ":"}
	want(t, sessionkey.Composite{sessionkey.Attribute("a"), sessionkey.Attribute("b")}, m, m.Attributes["a"]+":"+m.Attributes["b"])
	refused(t, sessionkey.Composite{sessionkey.Attribute("a"), sessionkey.Attribute("c")}, m, sessionkey.ErrMessage, "130 bytes: use 128")
}

// TestCompositeApart: no two combinations of parts give one ID.
func TestCompositeApart(t *testing.T) {
	parts := []string{"a", ":", "%", "a:", ":a", "%3A", "%25", "a%", "%a", "%253A", "3A"}
	seen := make(map[string][2]string)
	pair := sessionkey.Composite{sessionkey.Attribute("x"), sessionkey.Attribute("y")}
	for _, x := range parts {
		for _, y := range parts {
			id, err := pair.SessionID(&sessionkey.Message{Attributes: map[string]string{"x": x, "y": y}})
			if err != nil {
				t.Fatal(err)
			}
			if was, ok := seen[id]; ok {
				t.Errorf("%q has %q and %q", id, was, [2]string{x, y})
			}
			seen[id] = [2]string{x, y}
		}
		id, err := pair[:1].SessionID(&sessionkey.Message{Attributes: map[string]string{"x": x}})
		if _, ok := seen[id]; ok || err != nil {
			t.Errorf("one part %q is %q like two: %v", x, id, err)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, ok := range []string{"", "a", strings.Repeat("a", 128), "Zürich", "octo/hello:42", "a b"} {
		if err := sessionkey.Check(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{strings.Repeat("a", 129), strings.Repeat("ä", 65), "\xff", "a\x00", "\x1f", "\x7f", "\u0085", "a\tb"} {
		if err := sessionkey.Check(bad); !errors.Is(err, sessionkey.ErrMessage) || strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, ok := range []sessionkey.Strategy{
		sessionkey.None{}, sessionkey.Field("a"), sessionkey.Attribute("a"),
		sessionkey.Func(func(*sessionkey.Message) (string, error) { return "", nil }),
		sessionkey.Fallback{sessionkey.Composite{sessionkey.Field("a.b"), sessionkey.Field("/a/b")}, sessionkey.None{}},
		other{},
	} {
		if err := sessionkey.Validate(ok); err != nil {
			t.Errorf("%#v: %v", ok, err)
		}
	}
	for _, bad := range []sessionkey.Strategy{
		nil, sessionkey.Field(""), sessionkey.Attribute(""), sessionkey.Func(nil), sessionkey.Fallback{}, sessionkey.Composite{},
		sessionkey.Fallback(nil), sessionkey.Fallback{nil}, sessionkey.Composite{sessionkey.None{}, nil},
		sessionkey.Fallback{sessionkey.Composite{sessionkey.Field("a"), sessionkey.Fallback{sessionkey.Field("a..b")}}},
	} {
		if err := sessionkey.Validate(bad); !errors.Is(err, sessionkey.ErrStrategy) {
			t.Errorf("%#v: %v", bad, err)
		}
	}
}

type other struct{}

func (other) SessionID(*sessionkey.Message) (string, error) { return "", nil }
