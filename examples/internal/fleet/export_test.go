package fleet

import "syscall"

// Fall has the program end as if by itself.
func (p *Process) Fall() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Signal(syscall.SIGTERM)
}
