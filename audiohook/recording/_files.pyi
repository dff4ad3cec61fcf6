# What the docstrings in `_files.pyx` say holds here.

class Lock:
    fd: int
    def __init__(self, fd: int = -1) -> None: ...
    def map(self) -> None:
        """Go on without an open file, if that can be.

        The file is mapped to memory that is never touched. The kernel keeps what was
        opened, and so its lock, for as long as that is mapped, though its number is
        given back. See `audiohook.recording.disk.locks_last`.
        """
    @property
    def held(self) -> bool:
        """Whether it was not closed yet."""
    def close(self) -> None:
        """Give the lock up; once is enough."""

def create_all(
    spool_fd: int,
    requests: list[tuple[bytes, bytes, bytes, bytes | None]],
    *,
    journal_room_bytes: int,
    keep_file: bool,
) -> list[tuple[int, int, int, Lock | None]]:
    """Make the folders and files of calls, locked, with their first lines.

    Args:
        spool_fd: The spool's folder.
        requests: Of each the session id, its first line, a name that is not taken,
            and an empty folder to take instead, or ``None``.
        journal_room_bytes: Room to set aside for each journal behind its line.
        keep_file: Whether locks are to be open files.

    Returns:
        Of each an errno or 0, the number in its name, its audio, and its lock, or
        ``None`` if that is the one of the empty folder. It ends with the first that
        the disk as a whole refused.
    """

def make_spares(spool_fd: int, names: list[bytes]) -> list[tuple[int, Lock]]:
    """Make empty folders for calls to come, locked without open files.

    Args:
        spool_fd: The spool's folder.
        names: Names that are not taken.

    Returns:
        Of each an errno or 0, and its lock. It ends with the first that was not made.
    """

class Journals:
    def __init__(self, spool_fd: int) -> None: ...
    def append_all(
        self, entries: list[tuple[bytes, int, int, list[tuple[int | None, bytes]]]]
    ) -> list[tuple[int, list[int]]]:
        """Append lines to journals.

        Args:
            entries: Of each call its name, its audio, where its next line goes, and
                steps: where to cut the audio off, or ``None``, and lines. If the
                first fails, so do all; any other that fails is passed over.

        Returns:
            Of each call where its next line goes then, and for each step an errno
            or 0.
        """

    def close(self) -> None:
        """Give back the file that is kept for a process that has no more left."""

def empty_folder(spool_fd: int, name: bytes, audio_fd: int, new_name: bytes) -> int:
    """Empty the files of a call, make what is missing, and rename its folder.

    Args:
        spool_fd: The spool's folder.
        name: The call's folder.
        audio_fd: Its audio, -1 if that is not open.
        new_name: What it is to be called, which may be the same.

    Returns:
        0 or an errno; `errno.ENOTEMPTY` if there is anything else in it.
    """
