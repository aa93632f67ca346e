"""Sinks: the Parquet archive, its delivery, queries over it, and the audit."""
