"""Which part of the heartbeat gives a person away, and whether the methods that say so can be believed."""
