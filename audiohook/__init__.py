"""AudioHook Monitor server for Genesys Cloud.

It takes a WebSocket of stereo µ-law audio for each call, records it without
losing a sample, stores a WAV, and has it transcribed.
"""

from audiohook._version import __version__

__all__ = ["__version__"]
