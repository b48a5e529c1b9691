"""From raw samples to stored, filtered and delineated records."""
