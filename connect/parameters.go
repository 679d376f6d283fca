package connect

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parse reads a URL. Its error shows the form that was expected and nothing of
// the URL.
func parse(what, rawURL, form string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if err == nil {
		_, err = url.ParseQuery(u.RawQuery)
	}
	if err != nil {
		return nil, fmt.Errorf("connect: %s: the URL does not parse; use %s", what, form)
	}
	if u.Fragment != "" {
		return nil, fmt.Errorf("connect: %s: the URL has a fragment (#); write %%23 for a # in a name", what)
	}
	return u, nil
}

// filePath returns the path of a URL that names a file: scheme:///abs/path, or
// scheme:relative/path, as RFC 8089, Appendix E.2 has it.
func filePath(u *url.URL) (string, error) {
	switch {
	case u.User != nil:
		return "", errors.New("a file has no user")
	case u.Host != "" && u.Host != "localhost":
		return "", errors.New("a path has three slashes: without the third its first part is a host")
	case u.Opaque != "":
		path, err := url.PathUnescape(u.Opaque)
		if err != nil {
			return "", errors.New("the path does not parse")
		}
		if strings.HasSuffix(path, "/") {
			return "", errors.New("no file is named")
		}
		return path, nil
	case u.Path == "" || strings.HasSuffix(u.Path, "/"):
		return "", errors.New("no file is named")
	}
	return u.Path, nil
}

// parameters reads the query of a URL. Each value is taken by its name; finish
// returns the first error, or names the parameters that were not taken.
type parameters struct {
	what   string
	values url.Values
	taken  []string
	err    error
}

func (p *parameters) text(name string) string {
	p.taken = append(p.taken, name)
	v := p.values[name]
	if len(v) > 1 {
		p.fail("parameter %s is given %d times", name, len(v))
	}
	if len(v) == 0 {
		return ""
	}
	if v[0] == "" { // for example a variable that was not set
		p.fail("parameter %s is empty", name)
	}
	return v[0]
}

// duration returns a positive duration, 0 if there is none.
func (p *parameters) duration(name string) time.Duration {
	v := p.text(name)
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		p.fail("parameter %s is not a duration such as 30s", name)
	}
	return d
}

// number returns a number other than 0, 0 if there is none.
func (p *parameters) number(name string) int {
	v := p.text(name)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	switch {
	case err != nil:
		p.fail("parameter %s is not a number", name)
	case n == 0: // which options take for their default
		p.fail("parameter %s is 0: leave it out for the default", name)
	}
	return n
}

// choice returns the index of the value in the list, 0 if there is none.
func (p *parameters) choice(name string, list ...string) int {
	v := p.text(name)
	if v == "" {
		return 0
	}
	i := slices.Index(list, v)
	if i < 0 {
		p.fail("parameter %s is one of %s", name, strings.Join(list, ", "))
	}
	return max(i, 0)
}

func (p *parameters) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("connect: %s: %s", p.what, fmt.Sprintf(format, args...))
	}
}

func (p *parameters) finish() error {
	if p.err != nil {
		return p.err
	}
	for name := range p.values {
		if !slices.Contains(p.taken, name) {
			slices.Sort(p.taken)
			known := strings.Join(p.taken, ", ")
			if known == "" {
				known = "none"
			}
			if parameterName.MatchString(name) {
				name = fmt.Sprintf(" %q", name)
			} else {
				name = "" // it may be a secret that lost its name
			}
			return fmt.Errorf("connect: %s: unknown parameter%s; known: %s", p.what, name, known)
		}
	}
	return nil
}

// checkNames refuses parameters whose names do not look like one, for packages
// whose errors show the names that they do not know: a secret may have lost its
// own. A URL that does not parse is theirs to refuse.
func checkNames(what, rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil
	}
	for name := range u.Query() {
		if !parameterName.MatchString(name) {
			return fmt.Errorf("connect: %s: a parameter's name has other characters than a to z and _", what)
		}
	}
	return nil
}

var (
	// parameterName is how names of parameters look.
	parameterName = regexp.MustCompile(`^[a-z][a-z_]{0,31}$`)
	// variableName is how names of environment variables look. Keys and
	// connection strings look otherwise: base64 ends with =.
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
)
