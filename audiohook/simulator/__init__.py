"""A simulated Genesys client; never imported by the service."""
