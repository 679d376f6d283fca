package sbemulator

import "github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"

// The error conditions of AMQP (transport 2.8.15 to 2.8.18) and of Service Bus
// that the emulator uses.
const (
	condInternal        wire.Symbol = "amqp:internal-error"
	condNotFound        wire.Symbol = "amqp:not-found"
	condNotAllowed      wire.Symbol = "amqp:not-allowed"
	condUnauthorized    wire.Symbol = "amqp:unauthorized-access"
	condDecode          wire.Symbol = "amqp:decode-error"
	condResourceLimit   wire.Symbol = "amqp:resource-limit-exceeded"
	condInvalidField    wire.Symbol = "amqp:invalid-field"
	condNotImplemented  wire.Symbol = "amqp:not-implemented"
	condForced          wire.Symbol = "amqp:connection:forced"
	condFraming         wire.Symbol = "amqp:connection:framing-error"
	condHandleInUse     wire.Symbol = "amqp:session:handle-in-use"
	condUnattached      wire.Symbol = "amqp:session:unattached-handle"
	condDetachForced    wire.Symbol = "amqp:link:detach-forced"
	condMessageSize     wire.Symbol = "amqp:link:message-size-exceeded"
	condTimeout         wire.Symbol = "com.microsoft:timeout"
	condDeadLetter      wire.Symbol = "com.microsoft:dead-letter"
	condMessageLockLost wire.Symbol = "com.microsoft:message-lock-lost"
	condMessageNotFound wire.Symbol = "com.microsoft:message-not-found"
	condSessionLockLost wire.Symbol = "com.microsoft:session-lock-lost"
	condSessionTaken    wire.Symbol = "com.microsoft:session-cannot-be-locked"
	condNoSession       wire.Symbol = "com.microsoft:session-not-found"
)
