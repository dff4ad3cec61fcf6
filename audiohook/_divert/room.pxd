"""Memory that grows with need, and is given back once a burst is over."""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

cdef enum:
    FIRST_ROOM = 4096
    SPARE_ROOM = 32768


cdef struct Room:
    unsigned char *data
    Py_ssize_t used
    Py_ssize_t size
    # What it grows to, the next time that it has to.
    Py_ssize_t wanted


cdef inline int make_room(Room *room, Py_ssize_t more) noexcept nogil:
    """Makes sure that ``more`` bytes fit behind what is used; -1 without memory."""
    cdef Py_ssize_t size
    cdef unsigned char *data
    if room.used + more <= room.size:
        return 0
    size = room.size if room.size > 0 else FIRST_ROOM
    while size < room.used + more:
        size *= 2
    if room.wanted >= room.used + more:
        size = room.wanted
    data = <unsigned char *>realloc(room.data, size)
    if data == NULL:
        return -1
    room.data = data
    room.size = size
    return 0


cdef inline int add(Room *room, const unsigned char *data, Py_ssize_t n) noexcept nogil:
    if make_room(room, n) < 0:
        return -1
    memcpy(room.data + room.used, data, n)
    room.used += n
    return 0


cdef inline void drop_front(Room *room, Py_ssize_t n) noexcept nogil:
    room.used -= n
    if room.used > 0:
        memmove(room.data, room.data + n, room.used)
    elif room.size > SPARE_ROOM:
        # A burst is over: a quiet lane gives its memory back.
        free(room.data)
        room.data = NULL
        room.size = 0


cdef inline void clear(Room *room) noexcept nogil:
    """Gives the memory back."""
    free(room.data)
    room.data = NULL
    room.used = room.size = 0
