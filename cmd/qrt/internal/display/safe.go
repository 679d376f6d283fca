package display

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Whether line ends and tabs are escaped.
const (
	oneLine      = false
	severalLines = true
)

// Safe returns one line of text that came from outside, fit for a terminal:
// control and format characters, and bytes that are no UTF-8, are escaped.
func Safe(text string) string { return escape(text, oneLine) }

// Block is Safe for text of several lines: line ends and tabs stay.
func Block(text string) string { return escape(text, severalLines) }

// JSON returns one line of JSON with the characters that Safe escapes escaped as
// JSON has it, so that it means the same and can be looked at on a terminal. JSON
// has such characters in strings only.
func JSON(line []byte) []byte {
	if bytes.IndexFunc(line, func(r rune) bool { return unsafe(r, severalLines) }) < 0 {
		return line
	}
	out := make([]byte, 0, len(line)+64)
	for len(line) > 0 {
		r, n := utf8.DecodeRune(line)
		switch {
		case !unsafe(r, severalLines):
			out = append(out, line[:n]...)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		line = line[n:]
	}
	return out
}

func escape(text string, lines bool) string {
	if strings.IndexFunc(text, func(r rune) bool { return unsafe(r, lines) }) < 0 && utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(text[i])|0x100, 16)[1:])
		case unsafe(r, lines):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}

// unsafe says what may move the cursor, change colours or reorder the text
// around it (Unicode categories Cc and Cf: bidirectional controls are in the
// latter).
func unsafe(r rune, lines bool) bool {
	if lines && (r == '\n' || r == '\t') {
		return false
	}
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}
