package drivertest

import "slices"

// Cases returns the cases of the contract of package driver, one for each promise.
// The order is fixed. If a case needs something that the broker does not claim,
// it checks that the driver refuses it, and passes.
func Cases(h Harness) []Case {
	cases := make([]Case, len(conformanceCases))
	for i, c := range conformanceCases {
		cases[i] = Case{Name: c.name, Run: func(t T) { c.run(newEnv(t, h)) }}
	}
	return cases
}

// conformanceCase is one promise of the contract.
type conformanceCase struct {
	name string
	run  func(*env)
}

var conformanceCases = slices.Concat(
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
	sessionlessCases,
	sessionLockCases,
	concurrencyCases,
	lifecycleCases,
)
