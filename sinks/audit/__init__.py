"""The audit: what was acknowledged is archived, and is counted once."""
