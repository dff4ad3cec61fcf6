"""The files of many calls in one go, without the GIL.

A thread that does ten system calls for a call asks ten times for the GIL, and
waits up to 5 ms for it each time while the event loop is busy. Measured with 3,000
calls that open at 500 a second: that, and not the disk, was what they waited for.
So whatever is done for a group of calls is done here, in one stretch.

What the files mean is said in `audiohook.recording.disk`, which alone uses this.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EINTR, EIO, ENODATA, ENOMEM, ENOSPC, ENOTEMPTY, EROFS, errno
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport strcmp

cdef extern from *:
    """
    #include <dirent.h>
    #include <errno.h>
    #include <fcntl.h>
    #include <stdio.h>
    #include <sys/file.h>
    #include <sys/mman.h>
    #include <sys/stat.h>
    #include <unistd.h>

    #define JOURNAL "journal.jsonl"
    #define AUDIO "audio.ulaw"
    #define FILE_FLAGS (O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
    #define CREATE_FLAGS (O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)
    #define FOLDER_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    /* The longest name of a call is 39 characters. */
    #define PATH_BYTES 320

    static int open_in(int folder, const char *name, const char *file, int flags)
    {
        char path[PATH_BYTES];
        int fd;
        if (snprintf(path, sizeof path, "%s/%s", name, file) >= (int) sizeof path) {
            errno = ENAMETOOLONG;
            return -1;
        }
        do fd = openat(folder, path, flags, 0600); while (fd < 0 && errno == EINTR);
        return fd;
    }

    static void unlink_in(int folder, const char *name, const char *file)
    {
        char path[PATH_BYTES];
        if (snprintf(path, sizeof path, "%s/%s", name, file) < (int) sizeof path)
            unlinkat(folder, path, 0);
    }

    static int set_aside(int fd, int64_t size)
    {
        int code;
        do code = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, size);
        while (code < 0 && errno == EINTR);
        return code;
    }

    static int truncate_to(int fd, int64_t size)
    {
        int code;
        do code = ftruncate(fd, size); while (code < 0 && errno == EINTR);
        return code;
    }

    static int64_t size_of(int fd)
    {
        struct stat status;
        return fstat(fd, &status) < 0 ? -1 : (int64_t) status.st_size;
    }

    /* It keeps the open file, and so its lock, though its number is given back. */
    static void *hold_file(int fd)
    {
        void *address = mmap(NULL, 1, PROT_NONE, MAP_SHARED, fd, 0);
        return address == MAP_FAILED ? NULL : address;
    }

    static void let_file_go(void *address) { munmap(address, 1); }

    /* 0 if a folder holds nothing but a journal and audio. */
    static int look_for_others(int spool, const char *name)
    {
        struct dirent *entry;
        DIR *stream;
        int code = 0, fd = openat(spool, name, FOLDER_FLAGS);
        if (fd < 0) return -1;
        stream = fdopendir(fd);
        if (stream == NULL) {
            close(fd);
            return -1;
        }
        while ((errno = 0, entry = readdir(stream)) != NULL)
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")
                && strcmp(entry->d_name, JOURNAL) && strcmp(entry->d_name, AUDIO)) {
                errno = ENOTEMPTY;
                break;
            }
        code = errno;
        closedir(stream);
        errno = code;
        return code ? -1 : 0;
    }

    static int empty_file(int spool, const char *name, const char *file)
    {
        int code, fd = open_in(spool, name, file, FILE_FLAGS | O_CREAT);
        if (fd < 0) return -1;
        code = truncate_to(fd, 0) < 0 ? errno : 0;
        close(fd);
        errno = code;
        return code ? -1 : 0;
    }
    """
    const char *AUDIO
    const char *JOURNAL
    int FILE_FLAGS
    int CREATE_FLAGS
    int PATH_BYTES
    int EDQUOT
    int EEXIST
    int EMFILE
    int ENFILE
    int LOCK_EX
    int LOCK_NB
    int O_RDONLY
    int O_CLOEXEC
    int AT_REMOVEDIR
    int UTIME_NOW
    ctypedef long ssize_t
    int open_in(int folder, const char *name, const char *file, int flags) nogil
    void unlink_in(int folder, const char *name, const char *file) nogil
    int set_aside(int fd, int64_t size) nogil
    int truncate_to(int fd, int64_t size) nogil
    int64_t size_of(int fd) nogil
    void *hold_file(int fd) nogil
    void let_file_go(void *address) nogil
    int look_for_others(int spool, const char *name) nogil
    int empty_file(int spool, const char *name, const char *file) nogil
    int c_open "open"(const char *path, int flags) nogil
    int c_close "close"(int fd) nogil
    int flock(int fd, int how) nogil
    int mkdirat(int folder, const char *name, unsigned int mode) nogil
    int unlinkat(int folder, const char *name, int flags) nogil
    int renameat(int folder, const char *old, int other, const char *new) nogil
    int utimensat(int folder, const char *name, void *times, int flags) nogil
    int futimens(int fd, void *times) nogil
    ssize_t pwrite(int fd, const void *data, size_t size, int64_t offset) nogil
    int snprintf(char *text, size_t size, const char *format, ...) nogil

cdef enum:
    # Calls of one session id that are in a spool at a time.
    NAMES_LIMIT = 99


cdef class Lock:
    """A lock that lasts until it is closed.

    Args:
        fd: An open file that is locked, and is owned from now on; -1 for none.
    """

    cdef void *address
    cdef readonly int fd

    def __cinit__(self, int fd=-1):
        self.address = NULL
        self.fd = fd

    def map(self):
        if self.fd < 0:
            return
        self.address = hold_file(self.fd)
        if self.address != NULL:
            c_close(self.fd)
            self.fd = -1

    @property
    def held(self):
        return self.fd >= 0 or self.address != NULL

    def close(self):
        if self.address != NULL:
            let_file_go(self.address)
        if self.fd >= 0:
            c_close(self.fd)
        self.address = NULL
        self.fd = -1

    def __dealloc__(self):
        self.close()


cdef const char *chars(object data) except NULL:
    """The bytes of an object that the caller keeps."""
    if not isinstance(data, bytes):
        raise TypeError("bytes are wanted")
    return PyBytes_AS_STRING(data)


cdef struct Making:
    # What is wanted.
    const char *session
    const char *line
    size_t line_bytes
    const char *spare     # an empty folder that is locked; NULL for none
    const char *fresh     # a name for a new one
    # What was made.
    int error
    int number
    int audio_fd
    int journal_fd
    void *address
    bint used_spare


cdef int write_all(int fd, const char *data, size_t size, int64_t at) noexcept nogil:
    """Writes all of it, whatever the kernel takes at a time; an errno, or 0."""
    cdef ssize_t written
    while size > 0:
        written = pwrite(fd, data, size, at)
        if written < 0:
            if errno != EINTR:
                return errno
        elif written == 0:
            return EIO
        else:
            data += written
            at += written
            size -= <size_t>written
    return 0


cdef bint is_refusal(int code) noexcept nogil:
    """Whether the disk as a whole refuses, not just this one file."""
    return code == ENOSPC or code == EDQUOT or code == EIO or code == EROFS


cdef int give_name(int spool, const char *folder, Making *m) noexcept nogil:
    """Renames a folder to the first name that is free; an errno, or 0."""
    cdef char name[64]
    m.number = 1
    while True:
        if m.number == 1:
            snprintf(name, sizeof(name), "%s", m.session)
        else:
            snprintf(name, sizeof(name), "%s_%d", m.session, m.number)
        if renameat(spool, folder, spool, name) == 0:
            return 0
        if errno != EEXIST and errno != ENOTEMPTY or m.number == NAMES_LIMIT:
            return errno
        m.number += 1


cdef int begin(int spool, const char *folder, Making *m, int64_t room) noexcept nogil:
    """Writes the first line, and gives the folder its name; an errno, or 0."""
    cdef int code
    if set_aside(m.journal_fd, <int64_t>m.line_bytes + room) < 0 and is_refusal(errno):
        return errno
    code = write_all(m.journal_fd, m.line, m.line_bytes, 0)
    return code if code != 0 else give_name(spool, folder, m)


cdef void close_both(Making *m) noexcept nogil:
    if m.audio_fd >= 0:
        c_close(m.audio_fd)
    if m.journal_fd >= 0:
        c_close(m.journal_fd)
    m.audio_fd = m.journal_fd = -1


cdef int take_spare(int spool, Making *m, int64_t room) noexcept nogil:
    """Makes a call of an empty folder that is there; an errno, or 0."""
    cdef int code = 0
    m.journal_fd = open_in(spool, m.spare, JOURNAL, FILE_FLAGS)
    if m.journal_fd >= 0:
        m.audio_fd = open_in(spool, m.spare, AUDIO, FILE_FLAGS)
    if m.audio_fd < 0:
        code = errno
    # They are as old as their call, by which it is told when it ended if it was cut
    # off before there was any audio.
    elif utimensat(spool, m.spare, NULL, 0) < 0 or futimens(m.audio_fd, NULL) < 0:
        code = errno
    else:
        code = begin(spool, m.spare, m, room)
    if code != 0:
        close_both(m)
    else:
        c_close(m.journal_fd)
        m.journal_fd = -1
        m.used_spare = True
    return code


cdef int make_files(int spool, Making *m) noexcept nogil:
    """Makes an empty folder of a call, locked; an errno, or 0.

    If it fails, what there is has to be undone, but for a folder that is not ours.
    """
    if mkdirat(spool, m.fresh, 0o700) < 0:
        m.fresh = NULL
        return errno
    m.journal_fd = open_in(spool, m.fresh, JOURNAL, CREATE_FLAGS)
    if m.journal_fd < 0 or flock(m.journal_fd, LOCK_EX | LOCK_NB) < 0:
        return errno
    m.audio_fd = open_in(spool, m.fresh, AUDIO, CREATE_FLAGS)
    return errno if m.audio_fd < 0 else 0


cdef void undo(int spool, Making *m) noexcept nogil:
    """Leaves nothing of a folder that was made."""
    if m.fresh == NULL:
        return
    unlink_in(spool, m.fresh, AUDIO)
    unlink_in(spool, m.fresh, JOURNAL)
    close_both(m)
    unlinkat(spool, m.fresh, AT_REMOVEDIR)


cdef int make_folder(int spool, Making *m, int64_t room) noexcept nogil:
    """Makes a call of nothing, and leaves nothing if that fails; an errno, or 0."""
    cdef int code = make_files(spool, m)
    if code == 0:
        code = begin(spool, m.fresh, m, room)
    if code != 0:
        undo(spool, m)
    return code


cdef int make_spare(int spool, Making *m) noexcept nogil:
    """Makes an empty folder for a call to come, likewise."""
    cdef int code = make_files(spool, m)
    if code == 0:
        m.address = hold_file(m.journal_fd)
        # It is not worth an open file.
        code = errno if m.address == NULL else 0
    if code != 0:
        undo(spool, m)
    close_both(m)
    return code


cdef void make(int spool, Making *m, bint keep_file, int64_t room) noexcept nogil:
    m.error = -1
    if m.spare != NULL:
        m.error = take_spare(spool, m, room)
    if m.error != 0 and not is_refusal(m.error):
        m.error = make_folder(spool, m, room)
        if m.error == 0 and not keep_file:
            m.address = hold_file(m.journal_fd)
            if m.address != NULL:
                c_close(m.journal_fd)
                m.journal_fd = -1


def create_all(
    int spool_fd, list requests, *, int64_t journal_room_bytes, bint keep_file
):
    cdef Py_ssize_t i, count = len(requests), done = 0
    cdef Making *makings
    cdef Lock lock
    makings = <Making *>calloc(<size_t>count + 1, sizeof(Making))
    if makings == NULL:
        raise MemoryError
    try:
        for i in range(count):
            session, line, fresh, spare = requests[i]
            makings[i].session = chars(session)
            makings[i].line = chars(line)
            makings[i].line_bytes = <size_t>PyBytes_GET_SIZE(line)
            makings[i].fresh = chars(fresh)
            if spare is not None:
                makings[i].spare = chars(spare)
            makings[i].audio_fd = makings[i].journal_fd = -1
        with nogil:
            while done < count:
                make(spool_fd, &makings[done], keep_file, journal_room_bytes)
                done += 1
                if is_refusal(makings[done - 1].error):
                    break
        made = []
        for i in range(done):
            lock = None
            if makings[i].error == 0 and not makings[i].used_spare:
                lock = Lock()
                lock.address = makings[i].address
                lock.fd = makings[i].journal_fd
            made.append(
                (makings[i].error, makings[i].number, makings[i].audio_fd, lock)
            )
        return made
    finally:
        free(makings)


def make_spares(int spool_fd, list names):
    cdef Py_ssize_t i, count = len(names), done = 0
    cdef Making *makings
    cdef Lock lock
    makings = <Making *>calloc(<size_t>count + 1, sizeof(Making))
    if makings == NULL:
        raise MemoryError
    try:
        for i in range(count):
            makings[i].fresh = chars(names[i])
            makings[i].audio_fd = makings[i].journal_fd = -1
        with nogil:
            while done < count:
                makings[done].error = make_spare(spool_fd, &makings[done])
                done += 1
                if makings[done - 1].error != 0:
                    break
        made = []
        for i in range(done):
            lock = Lock()
            lock.address = makings[i].address
            made.append((makings[i].error, lock))
        return made
    finally:
        free(makings)


cdef struct Step:
    int64_t fit_bytes     # where the audio is cut off; -1 for nowhere
    const char *data
    size_t size
    int error


cdef struct Lines:
    const char *name
    int audio_fd
    int64_t at
    Py_ssize_t count
    Step *steps


cdef int fit_audio(int fd, int64_t size) noexcept nogil:
    cdef int64_t present = size_of(fd)
    if present < 0:
        return errno
    if present < size:
        return ENODATA
    if present > size and truncate_to(fd, size) < 0:
        return errno
    return 0


cdef int open_journal(int spool, const char *name, int *reserve) noexcept nogil:
    cdef int fd = open_in(spool, name, JOURNAL, FILE_FLAGS)
    if fd < 0 and (errno == EMFILE or errno == ENFILE) and reserve[0] >= 0:
        # One file is kept back for this: a call must end though others take all.
        c_close(reserve[0])
        reserve[0] = -1
        fd = open_in(spool, name, JOURNAL, FILE_FLAGS)
    return fd


cdef void append(int spool, Lines *lines, int *reserve) noexcept nogil:
    cdef Py_ssize_t i
    cdef Step *step
    cdef int fd = -1
    for i in range(lines.count):
        step = &lines.steps[i]
        if i > 0 and lines.steps[0].error != 0:
            # What nobody waits for comes first, or the order would be lost.
            step.error = lines.steps[0].error
            continue
        if step.fit_bytes >= 0:
            step.error = fit_audio(lines.audio_fd, step.fit_bytes)
        if step.error == 0 and step.size > 0:
            if fd < 0:
                fd = open_journal(spool, lines.name, reserve)
            if fd < 0:
                step.error = errno
            else:
                step.error = write_all(fd, step.data, step.size, lines.at)
        if step.error == 0:
            lines.at += <int64_t>step.size
    if fd >= 0:
        c_close(fd)
    if reserve[0] < 0:
        reserve[0] = c_open("/dev/null", O_RDONLY | O_CLOEXEC)


cdef class Journals:
    """Appends lines to journals, for one thread at a time.

    Args:
        spool_fd: The spool's folder; it stays open for longer than this is used.
    """

    cdef int spool_fd
    cdef int reserve

    def __cinit__(self, int spool_fd):
        self.spool_fd = spool_fd
        self.reserve = c_open("/dev/null", O_RDONLY | O_CLOEXEC)

    def close(self):
        if self.reserve >= 0:
            c_close(self.reserve)
        self.reserve = -1

    def __dealloc__(self):
        self.close()

    def append_all(self, list entries):
        cdef Py_ssize_t i, j, k = 0, count = len(entries), total = 0
        cdef Lines *lines = NULL
        cdef Step *steps = NULL
        for _, _, _, parts in entries:
            total += len(<list?>parts)
        lines = <Lines *>calloc(<size_t>count + 1, sizeof(Lines))
        steps = <Step *>calloc(<size_t>total + 1, sizeof(Step))
        try:
            if lines == NULL or steps == NULL:
                raise MemoryError
            for i in range(count):
                name, audio_fd, at, parts = entries[i]
                lines[i].name = chars(name)
                lines[i].audio_fd = audio_fd
                lines[i].at = at
                lines[i].steps = &steps[k]
                lines[i].count = len(parts)
                for fit_bytes, data in parts:
                    steps[k].fit_bytes = -1 if fit_bytes is None else fit_bytes
                    steps[k].data = chars(data)
                    steps[k].size = <size_t>PyBytes_GET_SIZE(data)
                    k += 1
            with nogil:
                for i in range(count):
                    append(self.spool_fd, &lines[i], &self.reserve)
            return [
                (lines[i].at, [lines[i].steps[j].error for j in range(lines[i].count)])
                for i in range(count)
            ]
        finally:
            free(lines)
            free(steps)


cdef int empty(int spool, const char *name, int audio_fd) noexcept nogil:
    """Empties a call's audio, then its journal; an errno, or 0."""
    if look_for_others(spool, name) < 0:
        return errno
    if audio_fd >= 0:
        if truncate_to(audio_fd, 0) < 0:
            return errno
    elif empty_file(spool, name, AUDIO) < 0:
        return errno
    if empty_file(spool, name, JOURNAL) < 0:
        return errno
    return 0


def empty_folder(int spool_fd, bytes name, int audio_fd, bytes new_name):
    cdef const char *old = name
    cdef const char *new = new_name
    cdef int code
    with nogil:
        code = empty(spool_fd, old, audio_fd)
        if code == 0 and strcmp(old, new) != 0:
            if renameat(spool_fd, old, spool_fd, new) < 0:
                code = errno
    return code
