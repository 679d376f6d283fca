package stream

import (
	"os"
	"sync"
)

// process is this process as its first reading saw it.
type process struct {
	id int
	// forked is memory that the system clears in a child that a fork makes: 1 here, 0
	// there. Nil if the system does not do that.
	forked []byte
}

var self = sync.OnceValue(func() *process {
	return &process{id: os.Getpid(), forked: clearedByFork()}
})

// current returns the process ID. If the system clears memory at a fork, that takes no
// system call, which would cost half as much as encrypting 1 KiB.
func (p *process) current() int {
	if p.forked != nil && p.forked[0] == 1 {
		return p.id
	}
	return os.Getpid()
}
