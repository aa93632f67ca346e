"""Real processes over the local stack, killed, stopped and resumed at random while the network loses answers."""
