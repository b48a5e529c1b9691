"""Stage 3, dual task: person and activity from one network, under protocols the paper did not test."""
