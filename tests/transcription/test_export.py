"""What is stored of a transcript, whatever the transcript is like."""

from __future__ import annotations

import json
import math
import re
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiohook.errors import TranscriptError
from audiohook.transcription.cues import columns
from audiohook.transcription.export import exports
from audiohook.transcription.turns import TIME_LIMIT_MS, plain_text, read_turns
from tests.transcription.subtitles import read_subrip, read_webvtt

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("external", "internal")
LINE = re.compile(r"\[(\d{2,}):([0-5]\d):([0-5]\d)\] (.+?): (.+)\n")


def word(text: str, start: int | None, end: int | None, **more: object) -> Any:  # noqa: ANN401 - JSON
    return {"text": text, "start": start, "end": end, "confidence": 0.9, **more}


def utterance(text: str, start: int, channel: str | None, speaker: str) -> Any:  # noqa: ANN401 - JSON
    """An utterance of which every word takes 400 ms, 100 ms apart."""
    who = {"channel": channel, "speaker": speaker}
    words = [
        word(each, start + 500 * i, start + 500 * i + 400, **who)
        for i, each in enumerate(text.split())
    ]
    return word(text, start, words[-1]["end"], words=words, **who)


def text_of(body: object, names: Sequence[str] = NAMES) -> str:
    assert isinstance(body, dict)
    return exports(body, channel_names=names)[".txt"].decode()


def test_call_of_two_speakers() -> None:
    body = {
        "id": "x",
        "status": "completed",
        "multichannel": True,
        "audio_url": "https://bucket.example/calls/a.wav?X-Amz-Signature=hush",
        "utterances": [
            utterance("Good morning.", 67_250, "2", "2"),
            utterance(
                "Hello, I have a question about my last invoice.", 1_000, "1", "1"
            ),
        ],
    }
    made = exports(body, channel_names=NAMES)
    assert list(made) == [".json", ".txt", ".srt", ".vtt"]
    assert made[".txt"] == (
        b"[00:00:01] customer: Hello, I have a question about my last invoice.\n"
        b"[00:01:07] agent: Good morning.\n"
    )
    assert made[".srt"] == (
        b"1\n00:00:01,000 --> 00:00:05,400\n"
        b"customer: Hello, I have a question about\nmy last invoice.\n\n"
        b"2\n00:01:07,250 --> 00:01:08,150\nagent: Good morning.\n"
    )
    assert made[".vtt"] == (
        b"WEBVTT\n\n00:00:01.000 --> 00:00:05.400\n"
        b"<v customer>Hello, I have a question about\nmy last invoice.\n\n"
        b"00:01:07.250 --> 00:01:08.150\n<v agent>Good morning.\n"
    )
    stored = json.loads(made[".json"])
    assert stored.pop("audio_url") == "https://bucket.example/calls/a.wav"
    assert stored == {name: body[name] for name in body if name != "audio_url"}


def test_channels_are_named_in_the_order_of_the_file() -> None:
    body = {"utterances": [utterance("Hello.", 0, "1", "1")]}
    assert text_of(body, ("internal", "external")) == "[00:00:00] agent: Hello.\n"


def test_overlaps_are_kept_and_sorted() -> None:
    body = {
        "utterances": [
            utterance("b " * 10, 1000, "2", "2"),
            utterance("a", 3000, "1", "1"),
            utterance("c " * 4, 1000, "1", "1"),
            utterance("d", 1000, "1", "1"),
        ]
    }
    found = [(t.start_ms, t.channel, t.text[0]) for t in read_turns(body, NAMES)]
    assert found == [(1000, 1, "d"), (1000, 1, "c"), (1000, 2, "b"), (3000, 1, "a")]


def as_in_subrip(text: str) -> str:
    """Puts characters of the same look where players would see tags."""
    return text.translate(str.maketrans("<>{}\\", "\u2039\u203a()\u29f5"))


def named(*speakers: tuple[str | None, str], names: Sequence[str] = NAMES) -> list[str]:
    """Returns the names of speakers of utterances, one after the other."""
    body = {
        "multichannel": True,
        "utterances": [
            utterance("x", 1000 * i, channel, speaker)
            for i, (channel, speaker) in enumerate(speakers)
        ],
    }
    return [turn.speaker for turn in read_turns(body, names)]


@pytest.mark.parametrize(
    ("speakers", "names", "expected"),
    [
        ([("1", "1"), ("2", "2")], NAMES, ["customer", "agent"]),
        ([("1", "1A"), ("2", "2A")], NAMES, ["customer", "agent"]),
        ([("1", "A"), ("2", "A")], NAMES, ["customer", "agent"]),
        (
            [("1", "1B"), ("2", "2A"), ("1", "1A"), ("1", "1B"), ("2", "2B")],
            NAMES,
            ["customer 1", "agent 1", "customer 2", "customer 1", "agent 2"],
        ),
        ([(None, "1A"), (None, "2")], NAMES, ["customer", "agent"]),
        ([("1", "1A"), ("1", "")], NAMES, ["customer", "customer"]),
        ([("1", "Jane Doe"), ("2", "2")], NAMES, ["Jane Doe", "agent"]),
        (
            [("3", "3"), ("0", ""), ("-1", "")],
            NAMES,
            ["channel 3", "speaker", "speaker"],
        ),
        ([("1", "1")], [], ["channel 1"]),
        ([("1", "1")], ["both"], ["both"]),
        ([("1", "1")], [""], ["channel 1"]),
        ([(None, "A"), (None, "B")], [], ["speaker 1", "speaker 2"]),
        ([(None, "A")], [], ["speaker"]),
        ([(None, ""), (None, "")], NAMES, ["speaker", "speaker"]),
        ([(None, "A"), (None, "B")], ["external"], ["customer 1", "customer 2"]),
        ([("1", "x" * 99)], NAMES, ["x" * 40]),
    ],
)
def test_speakers_are_named(
    speakers: list[tuple[str | None, str]], names: Sequence[str], expected: list[str]
) -> None:
    assert named(*speakers, names=names) == expected


@pytest.mark.parametrize("channel", [1, "1", True, 1.0, "x", "²", [], {}, "9" * 9999])
def test_channel_of_any_type_is_taken(channel: object) -> None:
    body = {"utterances": [utterance("x", 0, None, "") | {"channel": channel}]}
    known = type(channel) is int or channel == "1"
    expected = "customer" if known else "speaker"
    assert [turn.speaker for turn in read_turns(body, NAMES)] == [expected]


@pytest.mark.parametrize("utterances", [None, [], {}, "x", [None, 1, {}, {"text": ""}]])
def test_words_are_taken_where_there_are_no_utterances(utterances: object) -> None:
    words = [
        word("Hello", 0, 400, channel="1"),
        word("Hi", 300, 500, channel="2"),
        word("there.", 500, 900, channel="1"),
        word("Still", 5000, 5400, channel="1"),
        word("here?", 5500, 5900, channel="1"),
        word("A", 6000, 6100, channel="1", speaker="1B"),
        word("B", 6200, 6300, channel="1"),
    ]
    assert text_of({"utterances": utterances, "words": words}) == (
        "[00:00:00] customer: Hello there.\n"
        "[00:00:00] agent: Hi\n"
        "[00:00:05] customer: Still here?\n"
        "[00:00:06] customer: A\n"
        "[00:00:06] customer: B\n"
    )


def test_words_without_times_begin_as_the_one_before_ends() -> None:
    words = [
        word("a", None, None, channel="1"),
        word("b", 2000, 2500, channel="1"),
        word("c", None, None, channel="1"),
        word("d", None, 9000, channel="2"),
    ]
    turns = read_turns({"words": words}, NAMES)
    assert [(t.start_ms, t.end_ms, t.text) for t in turns] == [
        (0, 0, "a"),
        (0, 9000, "d"),
        (2000, 2500, "b c"),
    ]


@pytest.mark.parametrize("words", [None, [], [{}], [{"text": None}], 7])
def test_text_is_taken_where_there_are_no_words(words: object) -> None:
    body = {"words": words, "text": "Hello there.", "audio_duration": 3}
    made = exports(body, channel_names=["external"])
    assert made[".txt"] == b"[00:00:00] customer: Hello there.\n"
    assert made[".srt"] == (
        b"1\n00:00:00,000 --> 00:00:03,000\ncustomer: Hello there.\n"
    )


@pytest.mark.parametrize("text", [None, "", " \n", 5])
def test_nothing_said(text: object) -> None:
    made = exports({"text": text}, channel_names=NAMES)
    assert (made[".txt"], made[".srt"], made[".vtt"]) == (b"", b"", b"WEBVTT\n")


@pytest.mark.parametrize(
    ("start", "end", "cue"),
    [
        (None, None, "00:00:00,000 --> 00:00:00,500"),
        (5000, 1000, "00:00:05,000 --> 00:00:05,500"),
        (-5, 100, "00:00:00,000 --> 00:00:00,100"),
        (1.9, 2.9, "00:00:00,001 --> 00:00:00,002"),
        ("5", True, "00:00:00,000 --> 00:00:00,500"),
        (360_000_000, 360_001_000, "100:00:00,000 --> 100:00:01,000"),
        (10**30, 10**31, "9999:59:59,999 --> 10000:00:00,499"),
    ],
)
def test_times_of_any_kind(start: object, end: object, cue: str) -> None:
    body = {"utterances": [{"text": "x", "start": start, "end": end}]}
    made = exports(body, channel_names=())
    assert cue in made[".srt"].decode()


def test_times_that_are_no_json_numbers_are_no_times() -> None:
    for start in (math.nan, math.inf, -math.inf):
        (turn,) = read_turns({"utterances": [{"text": "x", "start": start}]}, ())
        assert (turn.start_ms, turn.end_ms) == (0, 0)


HOSTILE = "<b>&amp; --> {\\an8}\n\n2\r\x00\x1b[31m\u2028\u202edna\ud800 </v><i>"


def test_hostile_text_is_only_text() -> None:
    body = {
        "utterances": [
            utterance(HOSTILE, 0, "1", "1"),
            word("x", 500, 900, channel="2", speaker="<v \n--> &:"),
        ]
    }
    made = exports(body, channel_names=NAMES)
    lines = made[".txt"].decode().splitlines()
    assert lines == [
        "[00:00:00] customer: <b>&amp; --> {\\an8} 2 [31m dna\ufffd </v><i>",
        "[00:00:00] <v --> &:: x",
    ]
    spoken, named = read_webvtt(made[".vtt"])
    assert " ".join(spoken.lines) == lines[0].partition(": ")[2]
    assert (named.speaker, named.lines) == ("<v --> &:", ["x"])
    spoken, named = read_subrip(made[".srt"])
    assert " ".join(spoken.lines) == as_in_subrip(
        "<b>&amp; --> {\\an8} 2 [31m dna\ufffd </v><i>"
    )
    assert not set("".join(spoken.lines)) & set("<>{}\\")
    # Half a surrogate pair is kept where it can be.
    assert json.loads(made[".json"]) == body


def test_text_from_right_to_left_is_kept() -> None:
    text = "שלום, מה שלומך? مرحبا\u200f!"
    made = exports({"utterances": [utterance(text, 0, "1", "1")]}, channel_names=NAMES)
    assert made[".txt"].decode() == f"[00:00:00] customer: {text}\n"
    assert read_webvtt(made[".vtt"])[0].lines == [text]
    assert read_subrip(made[".srt"])[0].lines == [text]


def test_names_of_channels_are_only_text() -> None:
    names = ["<v>\n--> &", "x" * 500]
    body = {"utterances": [utterance("a", 0, "1", ""), utterance("b", 1, "2", "")]}
    made = exports(body, channel_names=names)
    assert [each.speaker for each in read_webvtt(made[".vtt"])] == [
        "<v> --> &",
        "x" * 40,
    ]
    assert read_subrip(made[".srt"])


def test_long_turn_is_cut_at_sentences_pauses_and_lengths() -> None:
    text = "One two three four five six seven eight nine. Ten eleven twelve"
    at = 0
    spoken = []
    for each in text.split():
        at += 5000 if each == "eleven" else 0
        spoken.append(word(each, at, at + 300))
        at += 350
    body = {"utterances": [word(text, 0, at, words=spoken, channel="1")]}
    cues = read_webvtt(exports(body, channel_names=NAMES)[".vtt"])
    assert [each.lines for each in cues] == [
        ["One two three four five six", "seven eight nine."],
        ["Ten"],
        ["eleven twelve"],
    ]
    assert [(each.start_ms, each.end_ms) for each in cues] == [
        (0, 3100),
        (3150, 3450),
        (8500, 9150),
    ]


def test_word_that_never_ends_is_shown_for_so_long() -> None:
    words = [word("a", 0, 60_000), word("b", 60_000, 60_100)]
    cues = read_webvtt(exports({"words": words}, channel_names=())[".vtt"])
    assert [(each.start_ms, each.end_ms) for each in cues] == [
        (0, 7000),
        (60_000, 60_100),
    ]


def test_words_that_are_not_those_of_the_text_do_not_count() -> None:
    words = [word("other", 0, 100), word("words", 100, 200)]
    said = word("The text itself.", 1000, 2600, words=words, channel="1")
    (turn,) = read_turns({"utterances": [said]}, NAMES)
    assert [tuple(token) for token in turn.tokens] == [
        ("The ", 1000, 1400),
        ("text ", 1400, 1900),
        ("itself.", 1900, 2600),
    ]


@pytest.mark.parametrize("words", [False, True])
def test_text_without_spaces_is_cut_by_its_width(words: bool) -> None:
    text = "本日はお電話いただきありがとうございます。" * 10
    said = word(text, 0, 60_000, channel="1")
    if words:
        said["words"] = [word(c, 286 * i, 286 * i + 286) for i, c in enumerate(text)]
    cues = read_webvtt(exports({"utterances": [said]}, channel_names=NAMES)[".vtt"])
    assert "".join("".join(each.lines) for each in cues) == text
    assert all(columns(line) <= 42 for each in cues for line in each.lines)
    assert all(each.end_ms - each.start_ms <= 7000 for each in cues)
    assert 59_000 < cues[-1].end_ms <= 60_100


SIGNED = "https://bucket.example/a.wav?X-Amz-Signature=hush&X-Amz-Expires=60"


@pytest.mark.parametrize(
    ("value", "rest"),
    [
        (SIGNED, "https://bucket.example/a.wav"),
        (SIGNED.upper(), "HTTPS://BUCKET.EXAMPLE/A.WAV"),
        (
            f"unable to download {SIGNED}. Sorry",
            "unable to download https://bucket.example/a.wav Sorry",
        ),
        ("https://me:hush@host/p", "https://host/p"),
        ("bucket/a.wav?X-Amz-Signature=hush", "bucket/a.wav"),
        ("https://host/p?hush", "https://host/p"),
    ],
)
def test_signed_addresses_are_stored_without_their_query(value: str, rest: str) -> None:
    body = {
        "audio_url": value,
        "webhook_url": value,
        "webhook_auth_header_value": "hush",
        "unknown": [[{"deep": [value]}], {"redacted_audio_url": value}],
        "text": "Really? Yes, 1=1?",
    }
    made = exports(body, channel_names=NAMES)
    assert json.loads(made[".json"]) == {
        "audio_url": rest,
        "webhook_url": rest,
        "unknown": [[{"deep": [rest]}], {"redacted_audio_url": rest}],
        "text": "Really? Yes, 1=1?",
    }
    assert b"hush" not in b"".join(made.values()).lower()
    assert body["audio_url"] == value


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"z": [1, 2.5, None, True, "é", {}], "a": {"b": -0.0, "c": 10**40}, "d": []},
        {"a": list(range(255)), "b": [[]] * 256, "c": [{}] * 257, "d": ["x"] * 1000},
        {"half a pair": ["\ud800"], "é": "\ud800"},
        {"x": nested(64)},
    ],
)
def test_json_is_otherwise_whole_and_in_its_order(body: dict[str, Any]) -> None:
    escape = "\ud800" in str(body.get("é"))
    made = exports(body, channel_names=())[".json"]
    whole = json.dumps(body, ensure_ascii=escape, separators=(",", ":"))
    assert made == whole.encode() + b"\n"


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, nested(65), nested(10_000), {1, 2}]
)
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(TranscriptError) as caught:
        exports({"x": value}, channel_names=())
    assert not caught.value.retryable


def test_same_transcript_gives_same_bytes() -> None:
    body = {
        "utterances": [utterance("a b c", 0, "1", "1A"), utterance("d", 0, "2", "2")]
    }
    again = json.loads(json.dumps(body))
    assert exports(body, channel_names=NAMES) == exports(again, channel_names=NAMES)


def test_long_call_needs_memory_in_proportion() -> None:
    def needed(turns: int) -> int:
        said = [
            utterance("so many words " * 5, 8000 * i, str(i % 2 + 1), "")
            for i in range(turns)
        ]
        body = {"multichannel": True, "utterances": said}
        tracemalloc.start()
        try:
            exports(body, channel_names=NAMES)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert needed(1000) < 6 * needed(200)


# Every kind of character: control, wide, from right to left, half a surrogate pair.
texts = st.text(st.characters(), max_size=60) | st.sampled_from([HOSTILE, "", " "])
values = (
    st.none()
    | st.integers(-100, 100_000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | texts
)
times = st.none() | st.integers(0, 100_000) | values
channels = st.sampled_from(["1", "2", "3", None, 1]) | values
speakers = st.sampled_from(["A", "1A", "2B", "1", None]) | values
any_word = st.fixed_dictionaries(
    {},
    optional={
        "text": texts | values,
        "start": times,
        "end": times,
        "channel": channels,
        "speaker": speakers,
    },
)
any_utterance = st.builds(
    lambda said, words: said | words,
    any_word,
    st.fixed_dictionaries(
        {}, optional={"words": st.lists(any_word | values, max_size=8)}
    ),
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "multichannel": st.booleans() | values,
        "text": texts | values,
        "audio_duration": times,
        "words": st.lists(any_word | values, max_size=10) | values,
        "utterances": st.lists(any_utterance | values, max_size=8) | values,
    },
)
names = st.lists(st.sampled_from(["external", "internal"]) | texts, max_size=3)


def squeezed(text: str) -> str:
    return "".join(text.split())


@given(bodies, names)
def test_whatever_comes_makes_files_that_can_be_read(
    body: dict[str, Any], names: list[str]
) -> None:
    made = exports(body, channel_names=names)
    assert made == exports(body, channel_names=names)
    json.loads(made[".json"])
    turns = read_turns(body, names)
    lines = made[".txt"].decode().splitlines(keepends=True)
    assert all(LINE.fullmatch(line) for line in lines)
    assert [line.partition("] ")[2] for line in lines] == [
        f"{turn.speaker}: {turn.text}\n" for turn in turns
    ]
    vtt, srt = read_webvtt(made[".vtt"]), read_subrip(made[".srt"])
    assert [(each.start_ms, each.end_ms) for each in vtt] == [
        (each.start_ms, each.end_ms) for each in srt
    ]
    for cue in vtt:
        assert cue.end_ms - cue.start_ms <= 7000
        assert len(cue.lines) <= 2
        assert all(columns(line) <= 42 for line in cue.lines)
    said = sorted(squeezed(turn.text) for turn in turns)
    assert len("".join(said)) == sum(len(squeezed("".join(c.lines))) for c in vtt)
    assert sorted("".join(said)) == sorted(
        character for cue in vtt for character in squeezed("".join(cue.lines))
    )
    assert sorted(as_in_subrip("".join(said))) == sorted(
        character for cue in srt for character in squeezed("".join(cue.lines))
    )


@given(bodies)
def test_turns_are_sorted_and_their_tokens_are_their_text(body: dict[str, Any]) -> None:
    turns = read_turns(body, NAMES)
    keys = [(turn.start_ms, turn.channel, turn.end_ms) for turn in turns]
    assert keys == sorted(keys)
    for turn in turns:
        assert turn.text
        assert turn.text == plain_text(turn.text)
        assert "".join(token.text for token in turn.tokens) == turn.text
        assert 0 <= turn.start_ms <= turn.end_ms <= TIME_LIMIT_MS
        starts = [token.start_ms for token in turn.tokens]
        assert starts == sorted(starts)
        assert all(token.start_ms <= token.end_ms for token in turn.tokens)


@given(st.lists(any_utterance, max_size=8))
def test_no_text_of_an_utterance_is_lost(utterances: list[dict[str, Any]]) -> None:
    made = read_turns({"utterances": utterances}, NAMES)
    expected = [plain_text(each.get("text")) for each in utterances]
    found = [turn.text for turn in made]
    for text in filter(None, expected):
        found.remove(text)


@given(st.lists(any_word, max_size=12))
def test_no_word_is_lost_where_there_are_only_words(
    words: list[dict[str, Any]],
) -> None:
    made = read_turns({"words": words}, NAMES)
    expected = sorted(squeezed(plain_text(each.get("text"))) for each in words)
    found = " ".join(turn.text for turn in made)
    assert sorted("".join(expected)) == sorted(squeezed(found))


@given(
    st.lists(
        st.tuples(
            st.sampled_from("12"),
            st.integers(0, 5000),
            st.lists(st.sampled_from("ab.?"), min_size=1, max_size=80),
        ),
        max_size=6,
    )
)
def test_cues_of_a_turn_are_its_text_in_its_order(
    turns: list[tuple[str, int, list[str]]],
) -> None:
    said = [
        utterance(
            f"{i} " + " ".join(f"{i}{part}" for part in parts), start, channel, channel
        )
        for i, (channel, start, parts) in enumerate(turns)
    ]
    cues = read_webvtt(exports({"utterances": said}, channel_names=NAMES)[".vtt"])
    for i, each in enumerate(said):
        mine = [cue for cue in cues if cue.lines[0].startswith(str(i))]
        assert " ".join(" ".join(cue.lines) for cue in mine) == each["text"]
        assert mine[0].start_ms == each["start"]
        assert mine[-1].end_ms == each["end"]
