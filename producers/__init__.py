"""Producers: what puts events into streams."""
