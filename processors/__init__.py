"""Processors: a pure core, the commit protocol around it, and the hosts that drive both."""
