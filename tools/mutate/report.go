package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// readEquivalents reads what mutants change nothing, and why: lines of a mutant's name,
// a tab and the reason. Empty lines and those that begin with # say nothing.
func readEquivalents(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	reasons := map[string]string{}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, reason, ok := strings.Cut(line, "\t")
		if !ok || strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s:%d: want a mutant's name, a tab and the reason", path, n)
		}
		reasons[name] = reason
	}
	return reasons, nil
}

// summarize writes a line for each mutant to the file, and the sums to out.
func summarize(out io.Writer, file string, results []result, reasons map[string]string, all []*mutant) error {
	type sum struct{ run, killed, equivalent int }
	sums := map[string]*sum{}
	var total sum
	var lines []string
	for _, r := range results {
		s := sums[r.pkg]
		if s == nil {
			s = &sum{}
			sums[r.pkg] = s
		}
		_, known := reasons[r.name()]
		verdict := "survived"
		for _, s := range []*sum{s, &total} {
			s.run++
			switch {
			case r.killer != "":
				s.killed++
				verdict = "killed by " + r.killer
			case known:
				s.equivalent++
				verdict = "equivalent"
			}
		}
		lines = append(lines, fmt.Sprintf("%s\t%s:%d\t%s", verdict, r.file, r.line, r.name()))
	}
	slices.Sort(lines)
	if file != "" {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return err
		}
	}
	var paths []string
	for p := range sums {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		s := sums[p]
		fmt.Fprintf(out, "%-24s %4d run, %4d killed, %3d equivalent, %3d survived\n", module[strings.LastIndex(module, "/")+1:]+"/"+p, s.run, s.killed, s.equivalent, s.run-s.killed-s.equivalent)
	}
	raw, rest := share(total.killed, total.run), share(total.killed, total.run-total.equivalent)
	fmt.Fprintf(out, "killed %d of %d: %.1f %%, %.1f %% without the equivalent ones\n", total.killed, total.run, 100*raw, 100*rest)
	errs := []error{fit(reasons, all)}
	if raw < leastRaw || rest < leastRest {
		errs = append(errs, fmt.Errorf("want at least %.0f %% killed, and %.0f %% without the equivalent ones", 100*leastRaw, 100*leastRest))
	}
	return errors.Join(errs...)
}

// fit fails for a reason that is of none of the mutants.
func fit(reasons map[string]string, all []*mutant) error {
	var errs []error
	for name := range reasons {
		if !slices.ContainsFunc(all, func(m *mutant) bool { return m.name() == name }) {
			errs = append(errs, fmt.Errorf("equivalents: no mutant is named %q: the code has changed; delete the line", name))
		}
	}
	return errors.Join(errs...)
}

func share(part, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(part) / float64(of)
}
