"""What drives shard sessions: the local loop, Lambda, the KCL; and what they share."""
