"""Whether a day's calls are all there, with all that belongs to them."""
