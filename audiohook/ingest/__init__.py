"""From a socket to whole messages and audio: listener, stream, pump."""
