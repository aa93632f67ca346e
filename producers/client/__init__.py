"""The producer client: events in, acknowledged records out."""
