package connect

import (
	"net/url"
	"strings"
)

// Redact returns rawURL fit for a terminal or a log: without user information, and with
// parameters hidden that are unknown or have an unexpected value. It shows nothing of a
// text that does not look like a URL, such as a connection string, or keys in the wrong
// variable.
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
	if strings.Contains(u.Host+u.Path+u.Opaque, ";") {
		return u.Scheme + "://(not shown)" // a connection string without its beginning
	}
	if u.User != nil {
		u.User = url.User("xxxxx")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		query = url.Values{}
	}
	shown := make(url.Values)
	for name, values := range query {
		looks, known := harmless[strings.ToLower(name)]
		if !known && !parameterName.MatchString(name) {
			name = "xxxxx" // it may be a secret that lost its name
		}
		for _, v := range values {
			if !known || !looks(v) {
				v = "xxxxx"
			}
			shown.Add(name, v)
		}
	}
	u.RawQuery = shown.Encode()
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
	if scheme == "postgresql" { // another spelling of postgres
		return true
	}
	for _, list := range [][]string{BrokerSchemes(), KeySchemes(), ReplayStoreSchemes()} {
		for _, s := range list {
			if s == scheme {
				return true
			}
		}
	}
	return false
}

// harmless are the parameters whose values may be shown, and how those look.
var harmless = map[string]func(string) bool{
	"account":               isWord,
	"application_name":      isWord,
	"connection":            variableName.MatchString,
	"dead_letter_suffix":    isWord,
	"dead_letter_retention": isWord,
	"dedup":                 isWord,
	"dedup_window":          isWord,
	"endpoint":              isEndpoint,
	"key":                   variableName.MatchString,
	"layout":                isWord,
	"lock":                  isWord,
	"max_batch_bytes":       isWord,
	"max_bytes":             isWord,
	"max_conns":             isWord,
	"max_deliveries":        isWord,
	"must_exist":            isWord,
	"partitioned":           isWord,
	"poll":                  isWord,
	"pooled":                isWord,
	"prefix":                isWord,
	"retention":             isWord,
	"schema":                isWord,
	"session_batch":         isWord,
	"sessions":              isWord,
	"sslmode":               isWord,
	"synchronous":           isWord,
	"target_session_attrs":  isWord,
	"timeout":               isWord,
	"cluster":               isWord,
	"fsync":                 isWord,
	"password_env":          variableName.MatchString,
	"replica_timeout":       isWord,
	"replicas":              isWord,
	"sentinel":              isWord,
	"sentinel_password_env": variableName.MatchString,
	"server_name":           isWord,
	"tls":                   isWord,
	"world_readable":        isWord,
}

// isWord is true of numbers, durations and short words.
func isWord(v string) bool {
	return len(v) <= 20 && !strings.ContainsFunc(v, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-µ", c))
	})
}

// isEndpoint is true of an http or https URL that has no more than a host and a
// path.
func isEndpoint(v string) bool {
	u, err := url.Parse(v)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" &&
		u.User == nil && u.RawQuery == "" && u.Fragment == ""
}
