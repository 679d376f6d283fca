package sqlitequeue_test

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
)

// complaints is a testing.TB that keeps errors to itself.
type complaints struct {
	testing.TB
	all []string
}

func (c *complaints) Errorf(format string, args ...any) {
	c.all = append(c.all, fmt.Sprintf(format, args...))
}
func (c *complaints) Helper() {}

// TestLedger shows that the ledger of the kill tests sees what it is there for.
func TestLedger(t *testing.T) {
	for want, lines := range map[string]string{
		"": `p send p.1 "p.1" 1;p sent p.1;p send p.5 "p.1" 5;p sent p.5;c claim;c got p.1 "p.1" 1 1;c claimed;c complete p.1;d claim;d got p.5 "p.1" 5 1;d claimed;c completed p.1;d complete p.5;d completed p.5`,
		// Its completion may have been under way, or may have been lost.
		" ":             `p send p.1 "p.1" 1;p sent p.1;d claim;c claim;c got p.1 "p.1" 1 1;c claimed;c complete p.1;c completed p.1;d got p.1 "p.1" 1 2;d claimed`,
		"overtook":      `p send p.1 "p.1" 1;p sent p.1;p send p.5 "p.1" 5;p sent p.5;c claim;c got p.5 "p.1" 5 1`,
		"first time":    `p send p.1 "p.1" 1;q send p.5 "p.1" 5;q sent p.5;c claim;c got p.5 "p.1" 5 1;c complete p.5;c completed p.5;c claim;c got p.1 "p.1" 1 1`,
		"was completed": `p send p.4 "" 4;p sent p.4;c claim;c got p.4 "" 4 1;c claimed;c complete p.4;c completed p.4;c claim;c got p.4 "" 4 2`,
		"its Count":     `p send p.4 "" 4;p sent p.4;c claim;c got p.4 "" 4 1;c claimed;d claim;d got p.4 "" 4 1`,
		"in session":    `p send p.4 "" 4;p sent p.4;c claim;c got p.4 "p.1" 4 1`,
	} {
		c := &complaints{TB: t}
		l := newLedger(c)
		n := strings.Count(lines, ";") + 1
		l.lines = bufio.NewScanner(strings.NewReader(strings.ReplaceAll(lines, ";", "\n")))
		for range n {
			l.read()
		}
		got := strings.Join(c.all, "; ")
		switch want = strings.TrimSpace(want); {
		case want == "" && got != "":
			t.Errorf("complaints about a run that is in order: %s", got)
		case !strings.Contains(got, want) || want != "" && len(c.all) != 1:
			t.Errorf("complaints: %q, want one of %q", got, want)
		}
	}
}
