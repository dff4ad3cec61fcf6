from __future__ import annotations

import io
from itertools import pairwise

import pytest

from audiohook.recording.wav import Encoding, header
from audiohook.simulator.assemblyai.script import speak
from audiohook.simulator.assemblyai.voices import Hearing, Span, listen, turns
from audiohook.simulator.source import conversation
from tests.simulator.assemblyai.tools import make_wav

TOLERANCE_MS = 20


def hear(wav: bytes) -> Hearing:
    return listen(io.BytesIO(wav))


@pytest.mark.parametrize("encoding", list(Encoding))
def test_voice_is_found_where_it_is(encoding: Encoding) -> None:
    voices = ((0.503, 1.217), (1.9, 2.0)), ((1.0, 2.496),)
    found = hear(make_wav(3.0, *voices, encoding=encoding))
    assert found.duration == 3.0
    assert len(found.voices) == 2
    for spans, heard in zip(voices, found.voices, strict=True):
        assert len(spans) == len(heard)
        for (start, end), span in zip(spans, heard, strict=True):
            assert span.start_ms == pytest.approx(1000 * start, abs=TOLERANCE_MS)
            assert span.end_ms == pytest.approx(1000 * end, abs=TOLERANCE_MS)


def test_any_number_of_channels() -> None:
    found = hear(make_wav(1.0, (), ((0.2, 0.6),), ((0.4, 1.0),)))
    assert [len(spans) for spans in found.voices] == [0, 1, 1]
    assert found.voices[2] == (Span(400, 1000),)


def test_built_in_conversation_takes_turns() -> None:
    source = conversation(8.0)
    wav = header(Encoding.ULAW, 2, 64_000) + source.read(64_000)
    found = hear(wav)
    external, internal = (turns(spans) for spans in found.voices)
    assert len(external) == len(internal) == 1
    # The built-in voices swell, so that they begin a little after they begin.
    assert external[0][0].start_ms == pytest.approx(250, abs=50)
    assert external[0][-1].end_ms == pytest.approx(3750, abs=50)
    assert internal[0][0].start_ms == pytest.approx(4250, abs=50)
    assert internal[0][-1].end_ms == pytest.approx(7750, abs=50)


def test_noise_and_clicks_are_no_voice() -> None:
    quiet = header(Encoding.ULAW, 1, 8000) + bytes((0xFE, 0x7E, 0xFD)) * 2667
    assert hear(quiet).voices == ((),)
    click = (
        header(Encoding.ULAW, 1, 8000) + b"\xff" * 4000 + b"\0" * 80 + b"\xff" * 3920
    )
    assert hear(click).voices == ((),)


def test_a_long_file_is_heard_in_pieces() -> None:
    found = hear(make_wav(40.0, ((9.9, 31.0),), ()))
    assert found.voices == ((Span(9900, 31000),), ())


def test_empty_audio() -> None:
    found = hear(header(Encoding.ULAW, 2, 0))
    assert found == Hearing(0.0, ((), ()))
    assert found.speech_share == 0.0
    assert speak(found) == []


def test_no_wav() -> None:
    with pytest.raises(ValueError, match="not a WAV file"):
        hear(b"<html></html>")


def test_mixed_and_cut() -> None:
    hearing = Hearing(10.0, ((Span(0, 3000),), (Span(2000, 4000), Span(8000, 9000))))
    assert hearing.mixed().voices == ((Span(0, 4000), Span(8000, 9000)),)
    assert hearing.speech_share == 0.5
    assert hearing.between(2500, 8500).voices == (
        (Span(2500, 3000),),
        (Span(2500, 4000), Span(8000, 8500)),
    )
    assert hearing.between(0, None) == hearing


def test_words_fill_the_time_of_the_voice() -> None:
    hearing = Hearing(
        60.0,
        (
            (Span(1000, 1300), Span(5000, 9000), Span(9300, 12000)),
            (Span(9000, 11_000), Span(20_000, 59_000)),
        ),
    )
    spoken = speak(hearing)
    assert [(line.channel, line.start_ms, line.end_ms) for line in spoken] == [
        (0, 1000, 1300),
        (0, 5000, 12_000),
        (1, 9000, 11_000),
        (1, 20_000, 59_000),
    ]
    for line in spoken:
        words = line.words
        assert (words[0].start_ms, words[-1].end_ms) == (line.start_ms, line.end_ms)
        for word, after in pairwise(words):
            assert word.start_ms < word.end_ms <= after.start_ms
        assert all(0 < word.confidence <= 1 for word in words)
        assert line.text[0].isupper()
        assert line.text[-1] in ".?"
        seconds = (line.end_ms - line.start_ms) / 1000
        assert len(words) <= max(2, 4 * seconds)
    assert spoken == speak(hearing)
    assert spoken[1].text != spoken[2].text


def test_pauses_make_utterances() -> None:
    spans = (Span(0, 100), Span(400, 500), Span(1100, 1200))
    assert turns(spans) == [spans[:2], spans[2:]]
