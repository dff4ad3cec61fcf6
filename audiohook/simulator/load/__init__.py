"""Many simulated Genesys clients at once, and proof of what they were recorded as."""
