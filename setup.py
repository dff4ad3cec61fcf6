"""Build of the Cython modules; everything else is in pyproject.toml.

Switches, as environment variables:

* ``AUDIOHOOK_DEBUG_KERNEL=1`` keeps bounds checks on (the test job builds so).
* ``AUDIOHOOK_ANNOTATE=1`` writes Cython's annotated HTML beside each module.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("AUDIOHOOK_DEBUG_KERNEL") == "1"

extensions = [
    Extension(
        f"audiohook.{name}",
        [f"audiohook/{name.replace('.', '/')}.pyx"],
        extra_compile_args=["-O3", "-fno-strict-aliasing"],
    )
    for name in ("_ulaw", "_divert", "protocol._ping", "simulator.load._frames")
]

setup(
    ext_modules=cythonize(
        extensions,
        annotate=os.environ.get("AUDIOHOOK_ANNOTATE") == "1",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "freethreading_compatible": True,
        },
    )
)
