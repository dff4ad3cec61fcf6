"""All the lanes that are read together, in one pass without the GIL."""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, realloc

from audiohook._divert.batch cimport Batch
from audiohook._divert.lane cimport SCRATCH, Lane, Pool


cdef class Fleet:
    """All the lanes that one pump reads.

    Args:
        buffer_limit_bytes: Audio of all lanes together that may wait for the
            disk; beyond it new messages are dropped.
        write_unit_bytes: Files grow by so much, or by a multiple, as far as
            ``due_batch`` has the choice. A file that grows by whole pages costs three
            quarters of one that does not: the kernel need not clear the rest of a
            page, nor look for it again.

    Attributes:
        answered: Messages that were answered in a sweep so far.
        pressing: Whether a lane had so much audio in the last sweep that it should
            be written at once.
        patient: Whether lanes with much unwritten audio are left unread; to be
            set to False while the disk hangs.
    """

    cdef list lanes
    cdef void **table
    cdef Py_ssize_t capacity
    cdef unsigned char *scratch
    cdef readonly int64_t answered
    cdef readonly bint pressing
    cdef Pool pool
    cdef Py_ssize_t write_unit

    def __cinit__(
        self, *, int64_t buffer_limit_bytes=536870912, Py_ssize_t write_unit_bytes=1
    ):
        if write_unit_bytes < 1:
            raise ValueError("write_unit_bytes must be at least 1")
        self.lanes = []
        self.pool = Pool()
        self.pool.limit = buffer_limit_bytes
        self.pool.patient = True
        self.write_unit = write_unit_bytes
        self.scratch = <unsigned char *>malloc(SCRATCH)
        if self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.table)
        free(self.scratch)

    def __len__(self):
        return len(self.lanes)

    @property
    def buffered_bytes(self):
        """Audio of all lanes that is not in its file yet."""
        return self.pool.waiting

    @property
    def buffer_limit(self):
        """Audio of all lanes that may wait; beyond it new messages are dropped."""
        return self.pool.limit

    @property
    def patient(self):
        return self.pool.patient

    @patient.setter
    def patient(self, bint patient):
        self.pool.patient = patient

    def add(self, Lane lane not None):
        """Takes a lane into the sweep.

        Raises:
            ValueError: It is in a sweep already.
            MemoryError: There is no memory for it.
        """
        cdef Py_ssize_t capacity
        cdef void **table
        cdef Py_ssize_t count = len(self.lanes)
        if lane.index >= 0:
            raise ValueError("the lane is in a sweep already")
        if count == self.capacity:
            capacity = 2 * self.capacity if self.capacity else 64
            table = <void **>realloc(self.table, capacity * sizeof(void *))
            if table == NULL:
                raise MemoryError
            self.table = table
            self.capacity = capacity
        self.lanes.append(lane)
        self.table[count] = <void *>lane
        lane.index = count
        lane.pool = self.pool
        self.pool.waiting += lane.own_buffered
        lane.own_buffered = 0
        lane.buffered = &self.pool.waiting

    def remove(self, Lane lane not None):
        """Takes a lane out of the sweep; a lane that is not in it is left alone.

        A lane that a batch still holds may be removed; what it holds counts as
        waiting until the batch is finished.
        """
        cdef Py_ssize_t last = len(self.lanes) - 1
        cdef Lane moved
        if lane.index < 0 or lane.pool is not self.pool:
            return
        moved = self.lanes[last]
        self.lanes[lane.index] = moved
        self.table[lane.index] = <void *>moved
        moved.index = lane.index
        self.lanes.pop()
        lane.index = -1
        # The lane keeps its reference to the pool, and so the counter that a
        # batch in flight will lower stays alive.

    def forget(self, Lane lane not None):
        """Stops counting a removed lane's audio that will never be written."""
        if lane.index < 0 and lane.pool is self.pool and not lane.writing_now:
            self.pool.waiting -= lane.unwritten_bytes
            lane.own_buffered = 0
            lane.buffered = &lane.own_buffered
            lane.pool = None

    def read(self, Lane lane not None):
        """Reads what has come on one lane's socket, without waiting."""
        with nogil:
            lane._receive(self.scratch)

    def sweep(self, double now=0.0):
        """Reads what has come on every lane's socket, without waiting.

        Lanes with ``fd`` -1 are left out; who feeds them looks after them. What a
        lane's hearer can answer is answered.

        Args:
            now: The time, in seconds.

        Returns:
            The lanes with something for their task: bytes to hand on, an end or
            an error.
        """
        cdef Py_ssize_t i
        cdef Py_ssize_t count = len(self.lanes)
        cdef Py_ssize_t found = 0
        cdef Lane lane
        cdef void **news
        cdef list result = []
        if count == 0:
            return result
        news = <void **>malloc(count * sizeof(void *))
        if news == NULL:
            raise MemoryError
        try:
            with nogil:
                self.pressing = False
                for i in range(count):
                    if self._visit(<Lane>self.table[i], now):
                        news[found] = self.table[i]
                        found += 1
            for i in range(found):
                lane = <Lane>news[i]
                result.append(lane)
        finally:
            free(news)
        return result

    cdef bint _visit(self, Lane lane, double now) noexcept nogil:
        """Looks after one lane in a sweep; True if there is something for its task."""
        if lane.fd >= 0:
            lane._receive(self.scratch)
            if lane.rest.used > lane.rest_start and lane._answer(now):
                self.answered += 1
        if lane.audio.used > lane.audio_limit / 4:
            self.pressing = True
        return lane._has_news()

    def batch(self):
        """Gathers all the audio of all lanes for one pass of writing."""
        cdef Batch batch = Batch(len(self.lanes))
        cdef Lane lane
        for lane in self.lanes:
            batch._consider(lane, lane.committed)
        return batch

    def due_batch(self):
        """Gathers the audio of all lanes that fills whole units of their files."""
        cdef Batch batch = Batch(len(self.lanes))
        cdef Lane lane
        for lane in self.lanes:
            batch._consider(lane, lane._whole_units(self.write_unit))
        return batch

    def hurried_batch(self):
        """Gathers all the audio of the lanes that are in a hurry."""
        cdef Batch batch = Batch(len(self.lanes))
        cdef Lane lane
        for lane in self.lanes:
            if lane.hurried:
                batch._consider(lane, lane.committed)
        return batch
