"""Facts of all kinds, for tests of journals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from audiohook.protocol.timeline import GapKind
from audiohook.recording.journal import (
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
)
from audiohook.recording.render import Gaps, Layout
from audiohook.recording.wav import Encoding

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
