"""The event source poller: what invokes the stack's functions locally, with the semantics of AWS Lambda's own."""
