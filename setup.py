"""Build of the Cython modules; everything else is in pyproject.toml.

Switches, as environment variables:

* ``AUDIOHOOK_DEBUG_KERNEL=1`` keeps bounds checks on (the test job builds so).
* ``AUDIOHOOK_ANNOTATE=1`` writes Cython's annotated HTML beside each module.
* ``AUDIOHOOK_SANITIZE=1`` has the compiler's address and undefined-behaviour
  sanitizers watch the modules, without Cython's own checks, which would get there
  first. Such modules only load where libasan was loaded before; see ``make sanitize``.
* ``AUDIOHOOK_BASELINE=1`` leaves out code for processors newer than the baseline.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

# The compiler takes nearly all of the time, a core and some 300 MB for each module.
PARALLEL = min(4, os.cpu_count() or 1)
DEBUG = os.environ.get("AUDIOHOOK_DEBUG_KERNEL") == "1"
SANITIZE = os.environ.get("AUDIOHOOK_SANITIZE") == "1"
BASELINE = os.environ.get("AUDIOHOOK_BASELINE") == "1"

compile_args = ["-O3", "-fno-strict-aliasing"]
link_args = []
if SANITIZE:
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    # Python has compilers wrap integers around, so that none would be said to overflow.
    compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-strict-aliasing"]
    compile_args += ["-fno-wrapv"]
    compile_args += sanitizers
    link_args += sanitizers

extensions = [
    Extension(
        f"audiohook.{name}",
        [f"audiohook/{name.replace('.', '/')}.pyx"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=[("AUDIOHOOK_BASELINE", "1")] if BASELINE else [],
    )
    for name in (
        "_ulaw",
        "_divert.hearer",
        "_divert.diverter",
        "_divert.lane",
        "_divert.batch",
        "_divert.fleet",
        "_divert.unsealer",
        "protocol._ping",
        "protocol._pong",
        "recording._files",
        "recording._peaks",
        "simulator.load._frames",
    )
]

setup(
    ext_modules=cythonize(
        extensions,
        annotate=os.environ.get("AUDIOHOOK_ANNOTATE") == "1",
        # The C of other directives must not be taken for that of the usual build.
        build_dir="build/sanitize/c" if SANITIZE else None,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG and not SANITIZE,
            "wraparound": False,
            "initializedcheck": DEBUG and not SANITIZE,
            "cdivision": True,
            "freethreading_compatible": True,
        },
    ),
    options={"build_ext": {"parallel": PARALLEL}},
)
