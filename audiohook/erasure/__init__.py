"""Erasure of calls on somebody's demand, down to the last trace."""
