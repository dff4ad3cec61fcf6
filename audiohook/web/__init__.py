"""A face for people: what is live, what waits, and what was recorded."""
