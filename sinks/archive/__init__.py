"""The archive: its layout, tables and columns."""
