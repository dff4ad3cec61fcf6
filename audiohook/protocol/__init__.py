"""The AudioHook protocol, without I/O: nothing in here imports Trio."""
