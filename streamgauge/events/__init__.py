"""The contract: events, their identity, schemas and wire formats. Pure: no I/O, no clock, no randomness."""
