"""The local stack: our own Kinesis beside MiniStack."""
