"""Audio and transcripts that are kept for so many days, and no longer."""
