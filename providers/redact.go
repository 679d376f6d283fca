package providers

import (
	"net/url"
	"strings"
)

// Redact returns rawURL fit for a terminal or a log: without user information,
// and with the values of those parameters hidden that are not known to be
// harmless. Of what does not look like a URL (a connection string, or keys in
// the wrong variable) nothing is shown.
func Redact(rawURL string) string {
	if rawURL == "" {
		return ""
	}
	if isConnection(rawURL) {
		return "Endpoint=(not shown)"
	}
	u, err := url.Parse(rawURL)
	if err != nil || !known(u.Scheme) {
		return "(not shown)"
	}
	if u.User != nil {
		u.User = url.User("xxxxx")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		query = url.Values{}
	}
	for name, values := range query {
		if harmless[strings.ToLower(name)] && !strings.ContainsAny(strings.Join(values, ""), "@;") {
			continue
		}
		for i := range values {
			values[i] = "xxxxx"
		}
	}
	u.RawQuery = query.Encode()
	u.Fragment, u.RawFragment = "", ""
	// Encoded slashes and colons of an endpoint are hard to read and harmless.
	text := strings.NewReplacer("%2F", "/", "%3A", ":").Replace(u.String())
	if rest, ok := strings.CutPrefix(text, u.Scheme+":"); ok && (rest == "" || rest[0] == '?') {
		return u.Scheme + "://" + rest
	}
	return text
}

// known reports whether a scheme is one of this package's: only then is the text
// after it known to be no secret.
func known(scheme string) bool {
	for _, list := range [][]string{QueueSchemes(), KeySchemes(), NonceSchemes()} {
		for _, s := range list {
			if s == scheme {
				return true
			}
		}
	}
	return false
}

// harmless are the parameters whose values may be shown.
var harmless = map[string]bool{
	"account":            true,
	"connection":         true, // the name of a variable
	"dead_letter_suffix": true,
	"dedup":              true,
	"dedup_window":       true,
	"endpoint":           true,
	"layout":             true,
	"lock":               true,
	"max_batch_bytes":    true,
	"max_bytes":          true,
	"max_deliveries":     true,
	"must_exist":         true,
	"poll":               true,
	"retention":          true,
	"sessions":           true,
	"synchronous":        true,
}
