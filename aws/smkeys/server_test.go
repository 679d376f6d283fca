package smkeys

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/queue-runtime/queue/testbed/awspeer"
)

// server speaks the JSON protocol of Secrets Manager (API Reference,
// GetSecretValue and ListSecretVersionIds), and has the operator's side as
// methods. Its client needs no socket, so it works in a synctest bubble.
type server struct {
	mu      sync.Mutex
	secrets map[string]*secret
	calls   map[string]int
	broken  string // an error code that every call gets; empty: none
	page    int    // versions a page; 0: all
}

type secret struct {
	deleted  bool
	versions []*version
}

type version struct {
	id      string
	text    *string
	binary  []byte
	stages  []string
	created time.Time
}

func newServer() *server {
	return &server{secrets: make(map[string]*secret), calls: make(map[string]int)}
}

// config returns a client's configuration without retries.
func (s *server) config() aws.Config {
	cfg := awspeer.Config("")
	cfg.BaseEndpoint, cfg.HTTPClient = nil, s
	return cfg
}

// Do is the client's side of the wire.
func (s *server) Do(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result(), nil
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		SecretID     string `json:"SecretId"`
		VersionID    string `json:"VersionId"`
		VersionStage string
		NextToken    string
	}
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	refuse := func(status int, code, text string) {
		answer(status, map[string]string{"__type": code, "Message": text})
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuse(400, "SerializationException", "not JSON")
		return
	}
	action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager.")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[action]++
	switch s.broken {
	case "":
	case "AccessDeniedException":
		refuse(400, s.broken, "User: arn:aws:iam::1:user/u is not authorized to perform: secretsmanager:"+action)
		return
	default:
		refuse(500, s.broken, "An error occurred on the server side.")
		return
	}
	sec := s.secrets[in.SecretID]
	if sec == nil {
		refuse(400, "ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
		return
	}
	if sec.deleted {
		refuse(400, "InvalidRequestException", "You can't perform this operation on the secret because it was marked for deletion.")
		return
	}
	switch action {
	case "GetSecretValue":
		if in.VersionStage == "" && in.VersionID == "" {
			in.VersionStage = stageCurrent
		}
		for _, v := range sec.versions {
			if in.VersionID != "" && v.id != in.VersionID || in.VersionStage != "" && !slices.Contains(v.stages, in.VersionStage) {
				continue
			}
			out := map[string]any{
				"ARN": "arn:aws:secretsmanager:us-east-1:000000000000:secret:" + in.SecretID, "Name": in.SecretID,
				"VersionId": v.id, "VersionStages": v.stages, "CreatedDate": float64(v.created.UnixMilli()) / 1000,
			}
			if v.text != nil {
				out["SecretString"] = *v.text
			} else {
				out["SecretBinary"] = base64.StdEncoding.EncodeToString(v.binary)
			}
			answer(200, out)
			return
		}
		refuse(400, "ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label or version")
	case "ListSecretVersionIds":
		var begin int
		_, _ = fmt.Sscan(in.NextToken, &begin)
		end := len(sec.versions)
		out := map[string]any{"Name": in.SecretID}
		if s.page > 0 && begin+s.page < end {
			end = begin + s.page
			out["NextToken"] = fmt.Sprint(end)
		}
		list := []map[string]any{}
		for _, v := range sec.versions[begin:end] {
			list = append(list, map[string]any{"VersionId": v.id, "VersionStages": v.stages})
		}
		out["Versions"] = list
		answer(200, out)
	default:
		refuse(400, "UnknownOperationException", action)
	}
}

// put adds a version to a secret, which takes the stages from the others. As in
// the service, the one that loses AWSCURRENT becomes AWSPREVIOUS.
func (s *server) put(name, id, text string, stages ...string) {
	s.add(name, &version{id: id, text: &text, stages: stages, created: time.Now()})
}

func (s *server) putBinary(name, id string, b []byte, stages ...string) {
	s.add(name, &version{id: id, binary: b, stages: stages, created: time.Now()})
}

func (s *server) add(name string, v *version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addLocked(name, v)
}

func (s *server) addLocked(name string, v *version) {
	sec := s.secrets[name]
	if sec == nil || sec.deleted {
		sec = &secret{}
		s.secrets[name] = sec
	}
	stages := v.stages
	v.stages = nil
	sec.versions = slices.DeleteFunc(sec.versions, func(x *version) bool { return x.id == v.id })
	sec.versions = append(sec.versions, v)
	for _, stage := range stages {
		sec.move(stage, v)
	}
}

// move gives a stage to one version, or to none.
func (sec *secret) move(stage string, to *version) {
	for _, v := range sec.versions {
		if i := slices.Index(v.stages, stage); i >= 0 && v != to {
			v.stages = slices.Delete(v.stages, i, i+1)
			if stage == stageCurrent && to != nil {
				sec.move(stagePrevious, v)
			}
		}
	}
	if to != nil && !slices.Contains(to.stages, stage) {
		to.stages = append(to.stages, stage)
	}
}

// promote makes a version the current one, as the last step of a rotation does.
func (s *server) promote(name, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[name].promote(id)
}

func (sec *secret) promote(id string) {
	for _, v := range sec.versions {
		if v.id == id {
			sec.move(stagePending, nil)
			sec.move(stageCurrent, v)
		}
	}
}

func (s *server) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[name].deleted = true
}

func (s *server) restore(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[name].deleted = false
}

func (s *server) fail(code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = code
}

func (s *server) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		n += c
	}
	return n
}

func (s *server) provider(t *testing.T, name string, o *Options) *Provider {
	t.Helper()
	p, err := New(s.config(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
