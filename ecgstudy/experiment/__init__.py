"""One way to state and run an experiment: cohort, protocol, attacker, seed and view."""
