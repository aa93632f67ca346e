"""The pure core: records in, effects out. No I/O, no clock, no environment, no randomness."""
