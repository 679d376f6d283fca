package trial

import "testing"

func TestFirstProgram(t *testing.T) {
	const readme = "# Q\n\n```sh\ngo get\n```\n\n```go\npackage main\n```\n\nIt prints:\n\n```text\nhello\n```\n"
	program, output, err := firstProgram(readme)
	if err != nil || program != "package main\n" || output != "hello" {
		t.Errorf("program %q, output %q, error %v", program, output, err)
	}
	for _, text := range []string{"", "```go\npackage main\n", "```go\npackage main\n```\n", "```text\nhello\n```\n\n```go\npackage main\n```\n"} {
		if _, _, err := firstProgram(text); err == nil {
			t.Errorf("no error for %q", text)
		}
	}
}
