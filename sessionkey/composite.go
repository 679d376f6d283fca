package sessionkey

import (
	"fmt"
	"strings"
)

// Composite joins what its strategies have with colons, for example
// "octo/hello:42". In each part a colon becomes %3A and a percent sign %25, so
// that two combinations never give one ID. If a part has no session, neither has
// the whole.
type Composite []Strategy

// escape makes a part free of colons, and can be undone.
var escape = strings.NewReplacer("%", "%25", ":", "%3A")

// SessionID implements Strategy.
func (c Composite) SessionID(m *Message) (string, error) {
	if len(c) == 0 {
		return "", Validate(c)
	}
	var joined strings.Builder
	for i, s := range c {
		if s == nil {
			return "", Validate(c)
		}
		part, err := s.SessionID(m)
		if err != nil {
			return "", err
		}
		if part == "" {
			return "", nil
		}
		if i > 0 {
			joined.WriteByte(':')
		}
		joined.WriteString(escape.Replace(part))
	}
	id := joined.String()
	if err := Check(id); err != nil {
		return "", fmt.Errorf("sessionkey: composite: %w", err)
	}
	return id, nil
}
