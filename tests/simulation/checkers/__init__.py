"""The invariants I1 to I8, each judged by a module of its own from what a world left behind.

Nothing here computes with the product's code: `leftovers` reads the stores' bytes, `reference` tells by the plainest
means what must have come of them, and the producers' `Attempt` says what was put.
"""
