"""Audio on its way to the files, many lanes at a time."""

from libc.stdlib cimport free, malloc

from audiohook._divert.lane cimport Lane


cdef class Batch:
    """Audio of many lanes on its way to their files.

    Made by a fleet or :func:`batch_of` in the thread of the event
    loop; ``write`` runs in a worker thread; ``finish`` is called in the loop's
    thread again, whatever happened.
    """

    def __cinit__(self, Py_ssize_t capacity):
        self.lanes = []
        self.capacity = capacity
        self.table = <void **>malloc(max(capacity, 1) * sizeof(void *))
        if self.table == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.table)

    def __len__(self):
        return self.count

    cdef void _consider(self, Lane lane, Py_ssize_t n):
        if self.count < self.capacity and lane._prepare_spill(n):
            lane.writing_now = True
            self.lanes.append(lane)
            self.table[self.count] = <void *>lane
            self.count += 1

    def write(self):
        """Writes each lane's audio at its place in its file. Blocks.

        A failure is noted in the lane (``write_error``), which keeps what could
        not be written for a later batch.
        """
        cdef Py_ssize_t i
        with nogil:
            for i in range(self.count):
                (<Lane>self.table[i])._write()

    def finish(self):
        """Gives the lanes back.

        Returns:
            The lanes that could not write all they had.
        """
        cdef Lane lane
        cdef list failed = []
        for lane in self.lanes:
            lane.writing_now = False
            lane.buffered[0] -= lane.spill_done
            lane._empty_spill()
            if lane.write_error:
                failed.append(lane)
        self.lanes = []
        self.count = 0
        return failed


def batch_of(lanes):
    """Gathers the audio of some lanes, in a fleet or not, for one pass of writing."""
    cdef Batch batch = Batch(len(lanes))
    cdef Lane lane
    for lane in lanes:
        batch._consider(lane, lane.committed)
    return batch
