package kvkeys

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/queue-runtime/queue/keys"
)

// maxSecret bounds the name of a secret (Key Vault, Objects, identifiers and
// versioning).
const maxSecret = 127

// separator stands between the provider's name, which does not contain it, and
// the key ID. So no key of one name can pass for a key of another.
const separator = "--"

// escape begins what stands for one byte of a key ID.
const escape = 'z'

// punctuation is what follows an escape for a byte that is no capital: the index
// is the digit. Capitals are followed by their small letter.
const punctuation = "z._:/"

// SecretName returns the name of the secret that holds a key in the layout
// [Secrets]. Small letters, digits and dashes of the ID stand for themselves, but
// for z; with it begins what stands for another byte:
//
//	z0  z        z2  _        z4  /
//	z1  .        z3  :        za to zz  A to Z
//
// So "2026-01" is itself, and "Prod/2026.1" is "zprodz42026z11". No two IDs share
// a name, in whatever case it is read. It fails for an ID that is not valid, and
// for one whose name would be longer than Key Vault takes; an ID of what stands
// for itself always fits.
func SecretName(name string, id keys.ID) (string, error) {
	if err := id.Validate(); err != nil {
		return "", err
	}
	var b strings.Builder
	if name != "" {
		b.WriteString(name + separator)
	}
	for i := range len(id) {
		c := id[i]
		switch at := strings.IndexByte(punctuation, c); {
		case at >= 0:
			b.WriteByte(escape)
			b.WriteString(strconv.Itoa(at))
		case 'A' <= c && c <= 'Z':
			b.WriteByte(escape)
			b.WriteByte(c - 'A' + 'a')
		default:
			b.WriteByte(c)
		}
	}
	if b.Len() > maxSecret {
		return "", fmt.Errorf("the secret's name would have %d bytes, Key Vault takes %d: give the key a shorter ID", b.Len(), maxSecret)
	}
	return b.String(), nil
}

// keyOf is the inverse of SecretName: it returns "" for a secret that holds no
// key of this name.
func keyOf(name, secret string) keys.ID {
	rest := strings.ToLower(secret)
	if name != "" {
		var ok bool
		if rest, ok = strings.CutPrefix(rest, name+separator); !ok {
			return ""
		}
	}
	id := make([]byte, 0, len(rest))
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		switch {
		case c != escape && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'):
		case c != escape || i+1 == len(rest):
			return ""
		default:
			i++
			switch e := rest[i]; {
			case 'a' <= e && e <= 'z':
				c = e - 'a' + 'A'
			case '0' <= e && int(e-'0') < len(punctuation):
				c = punctuation[e-'0']
			default:
				return ""
			}
		}
		id = append(id, c)
	}
	if keys.ID(id).Validate() != nil {
		return ""
	}
	return keys.ID(id)
}

// checkName keeps to what is unambiguous as a prefix and taken by Key Vault. Case
// makes no difference there.
func checkName(name string, layout Layout) error {
	limit := maxSecret
	if layout == Secrets {
		limit -= len(separator) + keys.MaxID // leaves room for most IDs
	} else if name == "" {
		return errors.New("kvkeys: no name: with the layout Versions it is that of the secret")
	}
	if len(name) > limit {
		return fmt.Errorf("kvkeys: a name of %d bytes: use at most %d", len(name), limit)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-':
		default:
			return fmt.Errorf("kvkeys: byte %d of the name: use letters, digits and dashes", i)
		}
	}
	if layout == Secrets && (strings.Contains(name, separator) || strings.HasSuffix(name, "-")) {
		return errors.New("kvkeys: two dashes in the name, or one at its end: they part it from the key ID")
	}
	return nil
}
