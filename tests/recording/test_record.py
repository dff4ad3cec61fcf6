"""What the facts in a journal say together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.protocol.timeline import Gap, GapKind
from audiohook.recording.journal import (
    AudioDeleted,
    Done,
    GapFact,
    LanguageFact,
    Media,
    Opened,
    PartStored,
    PausedFact,
    Planned,
    Stored,
    UploadBegun,
    UploadDropped,
    encode,
)
from audiohook.recording.record import CallRecord, OpenUpload, replay
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.transcripts import TranscriptSubmitted
from audiohook.recording.wav import Encoding
from tests.recording.factory import make_closed, make_opened
from tests.recording.facts import (
    PLANNED,
    later_facts,
    opened_facts,
)

if TYPE_CHECKING:
    from audiohook.recording.journal import Fact


def state_of(record: CallRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in CallRecord.__slots__}


@given(opened=opened_facts, facts=st.lists(later_facts, max_size=6))
def test_replay_builds_what_the_live_call_had(
    opened: Opened, facts: list[Fact]
) -> None:
    live = CallRecord(opened)
    for fact in facts:
        live.apply(fact)
    data = b"".join(map(encode, [opened, *facts]))
    record, size_bytes = replay(data)
    assert record is not None
    assert state_of(record) == state_of(live)
    assert size_bytes == len(data)


def test_replay_of_a_torn_journal_gives_the_whole_lines() -> None:
    opened = make_opened()
    facts: list[Fact] = [
        opened,
        GapFact(GapKind.PAUSED, 8, 16),
        PausedFact(paused=True, offset_samples=24),
        LanguageFact("fr-FR", 24),
        make_closed(48),
        PLANNED,
        UploadBegun("a/b.wav", "u", 5),
        PartStored("a/b.wav", 1, 3, '"e"', "AAAAAA=="),
        Stored("a/b.wav", 3, "00"),
        AudioDeleted("a/b.wav"),
        Done(),
    ]
    lines = [encode(fact) for fact in facts]
    data = b"".join(lines)
    ends = [len(b"".join(lines[:count])) for count in range(len(lines) + 1)]
    for size in range(len(data) + 1):
        whole = max(count for count, end in enumerate(ends) if end <= size)
        record, size_bytes = replay(data[:size])
        assert size_bytes == ends[whole]
        if whole == 0:
            assert record is None
            continue
        expected = CallRecord(opened)
        for fact in facts[1:whole]:
            expected.apply(fact)
        assert record is not None
        assert state_of(record) == state_of(expected)


def test_replay_takes_zeros_at_the_end_for_a_torn_line() -> None:
    line = encode(make_opened())
    record, size_bytes = replay(line + bytes(100))
    assert record is not None
    assert size_bytes == len(line)


def test_replay_passes_over_facts_it_does_not_know() -> None:
    opened = make_opened()
    unknown = b'{"fact":"painted","colour":"blue"}\n'
    data = encode(opened) + unknown + encode(Done())
    record, size_bytes = replay(data)
    assert record is not None
    assert record.done
    assert size_bytes == len(data)


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        (b"{]\n", "line 2"),
        (b"\n", "line 2"),
        (b"[]\n", "line 2: not an object"),
        (b"\xff\n", "line 2"),
        (b"{}\n", "line 2: fact is not a text"),
        (b"[" * 100_000 + b"\n", "line 2"),
        (b'{"fact":"gap","kind":"paused","offset_samples":1}\n', "length_samples"),
        (
            b'{"fact":"gap","kind":"paused","offset_samples":-1,"length_samples":1}\n',
            "offset_samples is not a whole number",
        ),
        (
            b'{"fact":"gap","kind":"paused","offset_samples":true,"length_samples":1}\n',
            "offset_samples is not a whole number",
        ),
        (
            b'{"fact":"gap","kind":"lost","offset_samples":1,"length_samples":'
            b"%d}\n" % (2**53 + 1),
            "length_samples is out of all proportion",
        ),
        (b'{"fact":"paused","paused":1,"offset_samples":1}\n', "neither true nor"),
        (
            b'{"fact":"upload_begun","key":"k","upload_id":"u","part_bytes":0}\n',
            "parts of no bytes",
        ),
        (encode(make_opened()), "line 2: opened twice"),
    ],
)
def test_replay_refuses_nonsense_between_lines(second: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        replay(encode(make_opened()) + second + encode(Done()))


@pytest.mark.parametrize("first", [encode(Done()), b'{"fact":"painted"}\n'])
def test_replay_refuses_a_journal_that_does_not_begin(first: bytes) -> None:
    with pytest.raises(ValueError, match="line 1: the first fact is not `opened`"):
        replay(first)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"NaN", b"Infinity"])
def test_replay_refuses_numbers_that_json_cannot_say(number: bytes) -> None:
    line = encode(make_opened(custom_config={"a": 17}))
    assert b'{"a":17}' in line
    with pytest.raises(ValueError, match="journal line 1"):
        replay(line.replace(b'{"a":17}', b'{"a":%b}' % number))


@pytest.mark.parametrize("depth", [101, 300, 900, 100_000])
@pytest.mark.parametrize("field", [b'"custom_config":17', b'"channels":["external"]'])
def test_replay_refuses_what_no_writer_could_write_again(
    field: bytes, depth: int
) -> None:
    media = Media("PCMU", ("external",), 8000)
    line = encode(make_opened(custom_config=17, media=media))
    name = field.partition(b":")[0]
    deep = name + b":" + b"[" * depth + b"]" * depth
    assert field in line
    with pytest.raises(ValueError, match="journal line 1"):
        replay(line.replace(field, deep))


def test_replay_takes_what_is_as_deep_as_a_message_may_be() -> None:
    deep: object = 17
    for _ in range(98):
        deep = [deep]
    record, _ = replay(encode(make_opened(custom_config=deep)))
    assert record is not None
    assert record.opened.custom_config == deep


def test_replay_refuses_an_opened_fact_with_a_field_of_another_type() -> None:
    fields = json.loads(encode(make_opened()))
    for name, value in fields.items():
        if name == "custom_config":
            continue
        wrong = {**fields, name: {"x": 1} if not isinstance(value, dict) else 7}
        with pytest.raises(ValueError, match="line 1"):
            replay(json.dumps(wrong).encode() + b"\n")


def test_timeline_of_a_cut_call_moves_gaps_to_its_end() -> None:
    record = CallRecord(make_opened(start_samples=80))
    record.apply(GapFact(GapKind.DISCARDED, 4, 10))
    record.apply(GapFact(GapKind.PAUSED, 30, 5))
    with pytest.raises(ValueError, match="not closed"):
        record.timeline()
    record.apply(make_closed(2 * 20, complete=False))
    timeline = record.timeline()
    assert timeline.gaps == (
        Gap(GapKind.DISCARDED, 4, 10),
        Gap(GapKind.LOST, 20, 10),
        Gap(GapKind.PAUSED, 20, 5),
    )
    assert timeline.start_samples == 80


def test_last_closed_and_last_plan_count() -> None:
    record = CallRecord(make_opened())
    record.apply(make_closed(10))
    record.apply(make_closed(6, complete=False))
    record.apply(PLANNED)
    other = Planned(
        "b", "calls/", Encoding.PCM16, Layout.MONO, Gaps.CUT, keep_raw=False
    )
    record.apply(other)
    assert record.closed == make_closed(6, complete=False)
    assert record.planned == other


def test_uploads_are_known_until_they_are_objects_or_given_up() -> None:
    record = CallRecord(make_opened())
    first, second = (PartStored("a", n, 5, f'"{n}"', "AAAAAA==") for n in (2, 3))
    record.apply(UploadBegun("a", "u1", 5))
    record.apply(UploadBegun("b", "u2", 5))
    record.apply(first)
    record.apply(second)
    assert record.uploads == {
        "a": OpenUpload("u1", 5, {2: first, 3: second}),
        "b": OpenUpload("u2", 5),
    }
    record.apply(UploadDropped("b"))
    assert set(record.uploads) == {"a"}
    record.apply(Stored("a", 10, "00"))
    assert record.uploads == {}
    record.apply(UploadDropped("a"))
    record.apply(first)
    assert record.uploads == {}


def test_facts_of_a_job_that_was_not_planned_count_for_nothing() -> None:
    record = CallRecord(make_opened())
    record.apply(TranscriptSubmitted("a", "t1"))
    assert record.jobs == {}
    assert not record.done


def test_parts_of_an_upload_do_not_count_for_the_next() -> None:
    record = CallRecord(make_opened())
    record.apply(UploadBegun("a", "u1", 5))
    record.apply(PartStored("a", 2, 5, '"e"', "AAAAAA=="))
    record.apply(UploadBegun("a", "u2", 7))
    assert record.uploads == {"a": OpenUpload("u2", 7)}


@pytest.mark.parametrize(
    ("channels", "size", "whole"),
    [(("external",), 5, 5), (("external", "internal"), 5, 4)],
)
def test_whole_frames_rounds_down(
    channels: tuple[str, ...], size: int, whole: int
) -> None:
    record = CallRecord(make_opened(media=Media("PCMU", channels, 8000)))
    assert record.whole_frames(size) == whole
