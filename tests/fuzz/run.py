"""Fuzzes one target with atheris: ``python -m tests.fuzz.run TARGET [libFuzzer's options]``.

What is found that covers more than what is known goes to ``.fuzz/TARGET``; what breaks
a target is left there too, as ``crash-…``, ``timeout-…`` and the like.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["audiohook", "h11", "http_sf", "wsproto", "json"]
):
    from tests.fuzz.targets import CORPUS, TARGETS

# An input that takes longer is a finding, as is more memory.
_TIMEOUT = 10
_RSS_LIMIT_MIB = 1024
_LONGEST = 8192
_WORDS = Path(__file__).with_name("words.dict")


def main(arguments: list[str]) -> None:
    """Runs the fuzzer; it ends the process."""
    name, *options = arguments
    found = Path(".fuzz", name)
    found.mkdir(parents=True, exist_ok=True)
    known = CORPUS / name
    atheris.Setup(
        [
            sys.argv[0],
            f"-timeout={_TIMEOUT}",
            f"-rss_limit_mb={_RSS_LIMIT_MIB}",
            f"-max_len={_LONGEST}",
            f"-artifact_prefix={found}/",
            "-print_final_stats=1",
            "-use_value_profile=1",
            f"-dict={_WORDS}",
            *options,
            str(found),
            *([str(known)] if known.is_dir() else []),
        ],
        TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
