module github.com/queue-runtime/queue

go 1.26
