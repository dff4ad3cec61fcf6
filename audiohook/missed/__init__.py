"""What Genesys says that it could not deliver, held against what is recorded."""
