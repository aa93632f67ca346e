"""Protections removed one at a time, in a copy of the tree: the suite must go red for each."""
