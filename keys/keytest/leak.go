package keytest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// run is how many bytes of a secret in a row count as a leak: fewer stand in any
// longer text by chance.
const run = 4

// Leak looks in text for the secret: any four bytes of it in a row, as they are,
// in hexadecimal, in base64, or as numbers in base 2, 8, 10 or 16 with the
// separators that fmt and the encoders use. It returns what it found, or "".
func Leak(text string, secret []byte) string {
	lower := strings.ToLower(text)
	for i := 0; i+run <= len(secret); i++ {
		part := secret[i : i+run]
		if strings.Contains(text, string(part)) {
			return fmt.Sprintf("the raw bytes from %d", i)
		}
		if strings.Contains(lower, hex.EncodeToString(part)) {
			return fmt.Sprintf("hexadecimal from byte %d", i)
		}
		for _, verb := range []string{"%d", "%x", "%#x", "%02x", "%o", "%b", "%q", "%U", "0x%02x", "'%c'"} {
			for _, separator := range []string{" ", ", ", ",", "", "\n"} {
				if separator == "" && verb != "%02x" {
					continue // ambiguous, and nothing prints so
				}
				var words []string
				for _, c := range part {
					words = append(words, fmt.Sprintf(verb, c))
				}
				if form := strings.ToLower(strings.Join(words, separator)); strings.Contains(lower, form) {
					return fmt.Sprintf("%s from byte %d", verb, i)
				}
			}
		}
		// Three bytes are four characters of base64, at each of three offsets;
		// two such groups are sure not to be chance.
		if i+6 <= len(secret) {
			for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
				if strings.Contains(text, e.EncodeToString(secret[i:i+6])) {
					return fmt.Sprintf("base64 from byte %d", i)
				}
			}
		}
	}
	return ""
}
