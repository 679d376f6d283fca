//go:build goexperiment.runtimesecret

package envelope

import "runtime/secret"

// confine runs f so that the registers, the stack and, once unreachable, the heap
// that it used are erased.
func confine(f func()) { secret.Do(f) }
