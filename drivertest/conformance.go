package drivertest

// Conformance holds a driver to the contract of package driver, one case per
// promise, each run by t.Run.
func Conformance(t T, h Harness) {
	for _, c := range cases {
		if h.Only != nil && !h.Only(c.name) {
			continue
		}
		t.Run(c.name, func(t T) { c.run(newEnv(t, h)) })
	}
}

// conformanceCase is one promise of the contract.
type conformanceCase struct {
	name string
	run  func(*env)
}

var cases []conformanceCase

type env struct{ T }

func newEnv(t T, h Harness) *env { return &env{t} }
