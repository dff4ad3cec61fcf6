from audiohook._divert.lane cimport Lane


cdef class Batch:
    cdef list lanes
    cdef void **table
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity

    cdef void _consider(self, Lane lane, Py_ssize_t n)
