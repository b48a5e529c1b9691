"""Stage 4, attribution: which wave of the heartbeat gives a person away, and which methods that say so hold."""
