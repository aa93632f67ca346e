"""The commit protocol: one module used by every host, and the stores and receivers behind its ports."""
