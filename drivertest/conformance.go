package drivertest

import "slices"

// Conformance holds a driver to the contract of package driver, one case per
// promise, each run by t.Run. A case that needs something the broker does not
// claim checks that it is refused instead, and passes.
func Conformance(t T, h Harness) {
	for _, c := range cases {
		if h.Only != nil && !h.Only(c.name) {
			continue
		}
		t.Run(c.name, func(t T) { c.run(newEnv(t, h)) })
	}
}

// Cases returns the names of the conformance cases, in the order in which they
// run.
func Cases() []string {
	names := make([]string, len(cases))
	for i, c := range cases {
		names[i] = c.name
	}
	return names
}

// conformanceCase is one promise of the contract.
type conformanceCase struct {
	name string
	run  func(*env)
}

var cases = slices.Concat(
	messageCases,
	limitCases,
	receiveCases,
	lockCases,
	settleCases,
	releaseCases,
	deadLetterCases,
	timeCases,
	inspectionCases,
	sessionCases,
	acceptCases,
	sessionLockCases,
	concurrencyCases,
	lifecycleCases,
)
