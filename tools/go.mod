module github.com/queue-runtime/queue/tools

go 1.26.4

require (
	github.com/queue-runtime/queue v0.0.0
	golang.org/x/mod v0.43.0
)

replace github.com/queue-runtime/queue => ../
