"""Telling another system what becomes of calls, by signed requests to one address."""
