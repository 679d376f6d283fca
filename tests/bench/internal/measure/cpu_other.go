//go:build !unix

package measure

import "time"

// cpuTime is not known on this system: figures of processor time are 0.
func cpuTime() time.Duration { return 0 }

// Switches returns how often threads of this process went to sleep; it is not known here.
func Switches() int64 { return 0 }
