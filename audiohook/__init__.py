"""AudioHook Monitor server for Genesys Cloud.

It takes a WebSocket of stereo µ-law audio for each call, records it without
losing a sample, stores a WAV, and has it transcribed.
"""

from audiohook._version import __version__

try:
    from audiohook import _divert as _divert
    from audiohook import _ulaw as _ulaw
    from audiohook.protocol import _ping as _ping
    from audiohook.protocol import _pong as _pong
    from audiohook.recording import _files as _files
    from audiohook.recording import _peaks as _peaks
except ImportError as error:
    # There is no slow path to fall back to: a service that lost its compiled
    # modules unseen would carry a fraction of the calls it was sized for.
    raise ImportError(
        "audiohook is here without its compiled modules; build them with "
        "`make build`, or with `pip install .`, which needs a C compiler"
    ) from error

__all__ = ["__version__"]
