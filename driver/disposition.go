package driver

// Disposition says what became of a message. Every package, metric, trace and log
// line uses these spellings.
type Disposition string

// The dispositions.
const (
	Completed    Disposition = "completed"     // removed: it is handled
	Abandoned    Disposition = "abandoned"     // given back; the delivery counts
	Released     Disposition = "released"      // given back; the delivery does not count if the broker can (Capabilities.ReleaseUncounted)
	DeadLettered Disposition = "dead_lettered" // moved to the dead-letter queue
	Lost         Disposition = "lost"          // not settled: the lock ended or could not be given up, and the message is delivered again
)

// Reasons of dead letters. The first group are findings of the receive pipeline
// (DESIGN.md, "What becomes of a message"); metrics use the same codes.
const (
	ReasonPlaintext          = "plaintext_rejected"
	ReasonUnsupportedVersion = "unsupported_version"
	ReasonInvalidEnvelope    = "invalid_envelope"
	ReasonKeyProvider        = "key_provider_error"
	ReasonKeyNotFound        = "key_not_found"
	ReasonReplayStore        = "replay_store_error"
	ReasonAuthentication     = "authentication_failed"
	ReasonSender             = "sender_not_accepted" // the sender that the message names is not in ReceiverOptions.Senders
	ReasonMessageExpired     = "message_expired"
	ReasonMessageFromFuture  = "message_from_future"
	ReasonNonceReused        = "nonce_reused"
	ReasonNonceBusy          = "nonce_busy"
	ReasonCollision          = "identity_collision" // two messages were sealed under one identity
	ReasonQuota              = "sender_quota"       // the sender has used up its room in the replay store

	// Findings that reject no message.
	ReasonPlaintextAllowed = "plaintext_allowed"      // delivered under AllowWithAlert
	ReasonAccounting       = "accounting_implausible" // a stream cannot be accounted for; no message's
	ReasonEncryptionFailed = "encryption_failed"      // of a sender: nothing was sent

	ReasonMaxDeliveries = "max_deliveries" // delivered as often as it may be; brokers give it, too
	ReasonExpired       = "expired"        // past the broker's own time to live
	ReasonPermanent     = "permanent"      // given up by a handler that names no code
	ReasonUndecodable   = "undecodable"    // a typed handler could not decode the body
)
