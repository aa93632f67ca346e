"""The command line."""

from streamgauge.cli.app import main

__all__ = ["main"]
