package postgresqueue

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Arrays as text (PostgreSQL, "Array Input and Output Syntax"), for drivers of
// database/sql, which have no common form of arrays.

// quoter escapes what ends an element in quotes.
var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func array[T any](list []T, element func(T) string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(element(v))
	}
	b.WriteByte('}')
	return b.String()
}

func textArray(list []string) string {
	return array(list, func(s string) string { return `"` + quoter.Replace(s) + `"` })
}

func bytesArray(list [][]byte) string {
	return array(list, func(b []byte) string { return `"\\x` + hex.EncodeToString(b) + `"` })
}

func boolArray(list []bool) string { return array(list, strconv.FormatBool) }

func numberArray(list []int64) string {
	return array(list, func(n int64) string { return strconv.FormatInt(n, 10) })
}

// timeArray writes times in ISO 8601, which DateStyle does not change.
func timeArray(list []*time.Time) string {
	return array(list, func(t *time.Time) string {
		if t == nil {
			return "NULL"
		}
		return `"` + t.UTC().Format("2006-01-02T15:04:05.999999Z") + `"`
	})
}

// parseNumbers reads an array of numbers.
func parseNumbers(text string) ([]int64, error) {
	inner, ok := strings.CutPrefix(text, "{")
	inner, end := strings.CutSuffix(inner, "}")
	if !ok || !end {
		return nil, fmt.Errorf("not an array: %d bytes", len(text))
	}
	if inner == "" {
		return nil, nil
	}
	var list []int64
	for s := range strings.SplitSeq(inner, ",") {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, nil
}
