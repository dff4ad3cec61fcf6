from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.protocol.timeline import Gap, GapKind
from audiohook.recording.journal import (
    AudioDeleted,
    ClosedFact,
    ContinuedSession,
    ControlFact,
    Done,
    GapFact,
    LanguageFact,
    Media,
    Opened,
    Participant,
    PartStored,
    PausedFact,
    Planned,
    Stored,
    UploadBegun,
    UploadDropped,
    decode,
    encode,
    is_uuid,
    utc_text,
)
from audiohook.recording.record import CallRecord, OpenUpload, replay
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.wav import Encoding
from tests.recording.factory import OpenedChanges, make_closed, make_opened

if TYPE_CHECKING:
    from audiohook.recording.journal import Fact

PLANNED = Planned(
    "name", "calls/", Encoding.ULAW, Layout.SPLIT, Gaps.CUT, keep_raw=True
)

# Any text, lone surrogates included, since names and numbers come as they like.
texts = st.text(st.characters(exclude_categories=()), max_size=20)
counts = st.integers(0, 2**53)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)
opened_facts = st.builds(
    Opened,
    session_id=st.uuids().map(str),
    organization_id=texts,
    correlation_id=texts,
    conversation_id=texts,
    participant=st.builds(Participant, texts, texts, texts, texts),
    language=st.none() | texts,
    custom_config=json_values,
    media=st.builds(
        Media,
        texts,
        st.sampled_from([("external",), ("internal", "external")]),
        counts,
    ),
    started_at=st.just("2026-11-22T14:10:44.123Z"),
    start_samples=counts,
    continued_sessions=st.lists(
        st.builds(ContinuedSession, texts, counts, counts), max_size=2
    ).map(tuple),
    key_label=st.none() | texts,
    retry_attempt=st.none() | counts,
)
later_facts: st.SearchStrategy[Fact] = st.one_of(
    st.builds(
        GapFact,
        st.sampled_from(GapKind),
        counts,
        counts,
        st.none() | texts,
        st.none() | texts,
    ),
    st.builds(ControlFact, texts, texts, st.none() | texts, texts, counts),
    st.builds(LanguageFact, texts, counts),
    st.builds(PausedFact, st.booleans(), counts),
    st.builds(ClosedFact, texts, counts, texts, st.booleans()),
    st.builds(
        Planned,
        texts,
        texts,
        st.sampled_from(Encoding),
        st.sampled_from(Layout),
        st.sampled_from(Gaps),
        st.booleans(),
    ),
    # Few keys, so that facts are about the same uploads.
    st.builds(UploadBegun, st.sampled_from("ab"), texts, st.integers(1, 2**53)),
    st.builds(PartStored, st.sampled_from("ab"), counts, counts, texts, texts),
    st.builds(UploadDropped, st.sampled_from("ab")),
    st.builds(Stored, st.sampled_from("ab") | texts, counts, texts),
    st.just(Done()),
)


def state_of(record: CallRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in CallRecord.__slots__}


@given(fact=opened_facts | later_facts)
def test_decode_gives_back_what_was_encoded(fact: Fact) -> None:
    line = encode(fact)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == fact


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


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (OpenedChanges(session_id="11111111-1111-4111-8111-11111111111A"), "id"),
        (OpenedChanges(session_id="../../etc/passwd"), "session id"),
        (OpenedChanges(session_id=str(uuid.UUID(int=1)) + "\n"), "session id"),
        (OpenedChanges(started_at="2026-11-22 14:10:44"), "start is not"),
        (OpenedChanges(started_at="2026-11-22T14:10:44.123Z/../x"), "start is not"),
        (OpenedChanges(media=Media("PCMU", (), 8000)), "channels"),
        (OpenedChanges(media=Media("PCMU", ("external",) * 2, 8000)), "channels"),
        (OpenedChanges(media=Media("PCMU", ("../x",), 8000)), "channels"),
    ],
)
def test_opened_refuses_what_must_not_reach_a_path(
    change: OpenedChanges, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        make_opened(**change)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_encode_refuses_what_json_cannot_say(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(make_opened(custom_config={"x": value}))


def test_encode_refuses_json_nested_beyond_reason() -> None:
    nested: object = None
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match="not JSON"):
        encode(make_opened(custom_config=nested))


def test_is_uuid_takes_one_form_only() -> None:
    good = "0123abcd-ef01-4234-9234-0123456789ab"
    assert is_uuid(good)
    for bad in (good.upper(), f"{{{good}}}", good.replace("-", ""), good + "\n", ""):
        assert not is_uuid(bad)


def test_utc_text_has_milliseconds_cut_off() -> None:
    assert utc_text(0.0) == "1970-01-01T00:00:00.000Z"
    assert utc_text(1_795_356_644.9996) == "2026-11-22T14:10:44.999Z"


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
