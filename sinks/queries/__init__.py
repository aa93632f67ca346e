"""SQL over the archive."""
