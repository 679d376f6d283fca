package keytest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
)

// run is how many bytes of a secret in a row count as a leak: fewer stand in any
// longer text by chance.
const run = 4

// form is a piece of a secret as it might stand in a text.
type form struct {
	text, what string
	fold       bool // whether upper and lower case are the same
}

// known holds the forms of each secret that was looked for: there are a few, and
// many texts.
var known sync.Map // string -> []form

// Leak looks in text for the secret: any four bytes of it in a row, as they are,
// in hexadecimal, or as numbers in base 2, 8, 10 or 16 with the separators that
// fmt and the encoders use; or six in a row in base64. It returns what it found,
// or "".
func Leak(text string, secret []byte) string {
	value, ok := known.Load(string(secret))
	if !ok {
		value, _ = known.LoadOrStore(string(secret), forms(secret))
	}
	list, _ := value.([]form) // nothing else is stored
	lower := strings.ToLower(text)
	for _, f := range list {
		if strings.Contains(text, f.text) || f.fold && strings.Contains(lower, f.text) {
			return f.what
		}
	}
	return ""
}

func forms(secret []byte) (list []form) {
	for i := 0; i+run <= len(secret); i++ {
		part := secret[i : i+run]
		add := func(text, what string, fold bool) {
			list = append(list, form{text, fmt.Sprintf("%s from byte %d", what, i), fold})
		}
		add(string(part), "raw bytes", false)
		add(hex.EncodeToString(part), "hexadecimal", true)
		for _, verb := range []string{"%d", "%x", "%#x", "%02x", "%o", "%b", "%q", "%U"} {
			words := make([]string, run)
			for j, c := range part {
				words[j] = strings.ToLower(fmt.Sprintf(verb, c))
			}
			for _, separator := range []string{" ", ", ", ",", "\n"} {
				add(strings.Join(words, separator), verb, true)
			}
		}
		// Three bytes are four characters of base64, at each of three offsets.
		if i+6 <= len(secret) {
			add(base64.StdEncoding.EncodeToString(secret[i:i+6]), "base64", false)
			add(base64.URLEncoding.EncodeToString(secret[i:i+6]), "base64 for URLs", false)
		}
	}
	return list
}
