"""Calls that are stored in parts, killed at any step, and with answers lost."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from audiohook.errors import UploadError
from audiohook.protocol.timeline import GapKind
from audiohook.recording.journal import GapFact, Media
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.wav import Encoding
from audiohook.storage.layout import peaks_key
from tests.recording.factory import entries, make_closed, make_opened, running
from tests.recording.waveforms import summed_up
from tests.storage.fake_s3 import FakeS3, away
from tests.storage.scripts import (
    Script,
    finish_at_last,
    plain_script,
    play,
    play_and_finish,
    stored_whole,
    stored_whole_locked,
)
from tests.storage.uploads import (
    Changes,
    Fuse,
    FusedSpool,
    Killed,
    make_uploader,
)

if TYPE_CHECKING:
    import pytest

    from audiohook.recording.journal import Fact
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall


@dataclass
class Ends:
    """Where two processes die: after so many steps, lines written or not."""

    steps: tuple[int, int]
    lines_survive: bool


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Calls whose gaps are known before what follows them is settled."""
    mono = draw(st.booleans())
    channels = ("internal",) if mono else ("internal", "external")
    width = len(channels)
    steps: list[bytes | Fact] = []
    samples = 0
    for _ in range(draw(st.integers(0, 7))):
        length = draw(st.sampled_from([1, 20, 33, 64, 150]))
        fill = draw(st.integers(0, 255))
        steps.append(
            bytes((fill + number * number) % 256 for number in range(length * width))
        )
        samples += length
        if draw(st.integers(0, 3)) == 0:
            steps.append(GapFact(GapKind.LOST, samples, draw(st.integers(0, 200))))
    opened = make_opened(media=Media("PCMU", channels, 8000))
    return Script(opened, steps)


@settings(max_examples=60)
@given(
    script=scripts(),
    ends=st.builds(
        Ends, st.tuples(st.integers(1, 60), st.integers(1, 60)), st.booleans()
    ),
    # At least as long as a header, which is known at the end only.
    part_bytes=st.sampled_from([58, 64, 101, 400]),
    encoding=st.sampled_from(Encoding),
    layout=st.sampled_from(Layout),
    cut=st.sampled_from(Gaps),
    peaks=st.booleans(),
)
def test_killed_at_any_step_it_goes_on_in_the_next_process(
    tmp_path_factory: pytest.TempPathFactory,
    script: Script,
    ends: Ends,
    part_bytes: int,
    encoding: Encoding,
    layout: Layout,
    cut: Gaps,
    peaks: bool,
) -> None:
    """Exactly one object of each key with the right bytes, and no upload left."""
    folder = tmp_path_factory.mktemp("spool") / "spool"
    store = FakeS3(part_bytes)
    changes: Changes = {
        "encoding": encoding,
        "layout": layout,
        "gaps": cut,
        "keep_peaks": peaks,
    }
    expected: dict[str, bytes] = {}
    confirmed: set[tuple[str, str, int]] = set()

    async def live() -> None:
        async with running(folder) as spool:
            with Mortal(store, Fuse(ends.steps[0])) as fuse:
                fused: Any = FusedSpool(spool, fuse)
                await play_and_finish(
                    script, fused, make_uploader(store, fused, **changes)
                )
            await end(spool, ends)

    async def go_on(step: int) -> None:
        known = len(store.sent)
        async with running(folder) as spool:
            with Mortal(store, Fuse(step)) as fuse:
                fused = FusedSpool(spool, fuse)
                for call in await spool.adopt():
                    confirmed.update(parts_of(call))
                    await make_uploader(store, fused, **changes).take(call).finish()  # type: ignore[arg-type]
            await end(spool, ends)
        again = {each[:3] for each in store.sent[known:]}
        assert again & confirmed == set()

    async def all_of_it() -> None:
        await live()
        expected.update(await stored_whole(folder, **changes) or store.contents())
        await go_on(ends.steps[1])
        await go_on(0)
        async with running(folder) as spool:
            assert await spool.adopt() == []
        assert entries(folder) <= {"aside"}

    trio.run(all_of_it)
    assert store.contents() == expected
    for key, data in expected.items():
        if key.endswith(".wav"):
            assert (peaks_key(key) in expected) is peaks
            assert not peaks or expected[peaks_key(key)] == summed_up(data)
    assert len(store.written) == len(set(store.written))
    # Not even one of which no line was written.
    assert store.uploads == {}


def parts_of(call: SpooledCall) -> set[tuple[str, str, int]]:
    return {
        (key, upload.upload_id, number)
        for key, upload in call.record.uploads.items()
        for number in upload.parts
    }


class Mortal:
    """A process that dies when the fuse blows, in whichever task that is."""

    def __init__(self, store: FakeS3, fuse: Fuse) -> None:
        self._store = store
        self._fuse = fuse

    def __enter__(self) -> Fuse:
        self._store.step = lambda _: self._fuse.burn()
        return self._fuse

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> bool:
        self._store.step = lambda _: None
        return isinstance(error, Killed) or (
            isinstance(error, BaseExceptionGroup) and error.split(Killed)[1] is None
        )


async def end(spool: Spool, ends: Ends) -> None:
    if ends.lines_survive:
        await spool.flush()
    for call in list(spool._calls.values()):
        call.release()


@settings(max_examples=40)
@given(
    lost=st.sets(st.integers(0, 80), max_size=12),
    late_gap=st.none() | st.tuples(st.integers(0, 500), st.integers(1, 100)),
)
def test_store_that_loses_answers_ends_up_with_each_object_once(
    tmp_path_factory: pytest.TempPathFactory,
    lost: set[int],
    late_gap: tuple[int, int] | None,
) -> None:
    store = FakeS3()
    script = plain_script()
    if late_gap is not None:
        script.steps.append(GapFact(GapKind.LOST, *late_gap))
    count = itertools.count()

    def step(what: str) -> None:
        # One that was begun and never told of is looked for once.
        if what != "begin" and next(count) in lost:
            raise away()

    async def all_of_it() -> None:
        async with running(tmp_path_factory.mktemp("spool")) as spool:
            store.step = step
            call, upload = await play(
                script, spool, make_uploader(store, spool), UploadError
            )
            store.step = lambda _: None
            await spool.seal(call, make_closed(1000))
            expected = await stored_whole_locked(call, spool, {})
            store.step = step
            await finish_at_last(upload)
        assert store.contents() == expected
        assert store.uploads == {}
        assert len(store.written) == len(set(store.written)) == 3

    trio.run(all_of_it)
