package sbemulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// The claims-based security of $cbs: a client puts a token for each entity
// before it attaches a link to it (AMQP CBS 1.0, working draft 5).

// putToken answers a request to $cbs.
func (c *connection) putToken(m *wire.Message) answer {
	if op, _ := m.Application.String("operation"); op != "put-token" {
		return answer{status: 400, description: "The operation is unknown."}
	}
	name, _ := m.Application.String("name")
	a := parseAddress(name)
	if a.queue == "" {
		return answer{status: 400, description: "The audience names no entity."}
	}
	if key := c.s.opts.Key; key != "" {
		v, _ := m.Value()
		token, _ := v.(string)
		if !checkToken(token, name, key, time.Now()) {
			return answer{status: 401, condition: condUnauthorized, description: "Unauthorized access. The token is invalid or has expired."}
		}
	}
	if c.s.find(a) == nil {
		e := c.s.notFound(a.path())
		return answer{status: 404, condition: e.Condition, description: e.Description}
	}
	if len(c.claims) < maxClaims {
		c.claims[strings.ToLower(a.path())] = true
	}
	return answer{status: 200, description: "OK"}
}

// maxClaims is how many entities one connection may hold claims for.
const maxClaims = 10_000

// claimed reports whether the client may use an entity. A claim for a queue is
// one for its dead letters and $management too.
func (c *connection) claimed(a address) bool {
	return c.s.opts.Key == "" || c.trusted ||
		c.claims[strings.ToLower(a.path())] || c.claims[strings.ToLower(a.queue)]
}

// checkToken verifies a shared access signature: that it was made with the key,
// is not over, and covers the audience.
func checkToken(token, audience, key string, now time.Time) bool {
	fields, ok := strings.CutPrefix(token, "SharedAccessSignature ")
	if !ok {
		return false
	}
	var resource, signature, expiry string
	for f := range strings.SplitSeq(fields, "&") {
		name, value, _ := strings.Cut(f, "=")
		switch name {
		case "sr":
			resource = value
		case "sig":
			signature = value
		case "se":
			expiry = value
		}
	}
	mac := hmac.New(sha256.New, []byte(key))
	_, _ = mac.Write([]byte(resource + "\n" + expiry)) // never fails
	want := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	got, err := url.QueryUnescape(signature)
	if err != nil || subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return false
	}
	end, err := strconv.ParseInt(expiry, 10, 64)
	if err != nil || now.Unix() >= end {
		return false
	}
	covered, err := url.QueryUnescape(resource)
	if err != nil {
		return false
	}
	// What is below a path is covered with it, and nothing else that begins alike.
	rest, ok := strings.CutPrefix(withoutScheme(audience), strings.TrimSuffix(withoutScheme(covered), "/"))
	return ok && (rest == "" || rest[0] == '/')
}

func withoutScheme(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	return strings.ToLower(s)
}
