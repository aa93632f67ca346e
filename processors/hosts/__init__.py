"""What drives shard sessions: the local loop; Lambda and the KCL later."""
