package stream

import (
	"syscall"
	"testing"
)

// TestForkIsNoticed forks this process. The child must see 0: it shares with its parent
// what numbers messages.
func TestForkIsNoticed(t *testing.T) {
	memory := clearedByFork()
	if memory == nil {
		t.Skip("this kernel clears no memory at a fork")
	}
	child, errno := forkAndLook(&memory[0])
	if errno != 0 {
		t.Fatal(errno)
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(child, &status, 0, nil)
		if err == syscall.EINTR { //nolint:errorlint // an Errno
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("the child ended with %v, want 0: what it sees of its parent's memory", status)
	}
	if memory[0] != 1 {
		t.Errorf("the parent sees %d, want 1", memory[0])
	}
}

// forkAndLook returns the child's ID. The child, which has one thread and no scheduler,
// makes system calls only: it exits with the byte as its status.
//
//go:norace
//go:nosplit
func forkAndLook(b *byte) (child int, errno syscall.Errno) {
	id, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if id != 0 || errno != 0 {
		return int(id), errno
	}
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(*b), 0, 0)
	}
}
