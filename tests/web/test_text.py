from __future__ import annotations

import pytest

from audiohook.web import text

# "I want", in Persian.
JOINED = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Anna Müller", "Anna Müller"),
        ("", ""),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\u2066b\u2069", "a⟨U+2066⟩b⟨U+2069⟩"),
        ("a\nb\tc\x00", "a⟨U+000A⟩b⟨U+0009⟩c⟨U+0000⟩"),
        ("a\u2028b", "a⟨U+2028⟩b"),
        ("\ufeffa\u200b", "⟨U+FEFF⟩a⟨U+200B⟩"),
        ("\ud800", "⟨U+D800⟩"),
        (JOINED, JOINED),
        ("a\u00a0b", "a b"),
        ("<b>", "<b>"),
    ],
)
def test_what_nobody_would_see_is_named(given: str, shown: str) -> None:
    assert text.visible(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("+49 30 1234567", "••••67"),
        ("tel:+4930123456", "••••56"),
        ("110", "••••"),
        ("sip:anna@example.com", "••••"),
        ("", ""),
    ],
)
def test_numbers_are_hidden_but_for_their_ends(given: str, shown: str) -> None:
    assert text.number(given, show=False) == shown
    assert text.number(given, show=True) == given


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Anna", "Anna"),
        ("+49 (30) 1234-567", "+••••67"),
        ("Line 7", "Line 7"),
        ("Anna 030/123456 x", "Anna ••••56x"),
    ],
)
def test_numbers_within_names_are_hidden(given: str, shown: str) -> None:
    assert text.name(given, show=False) == shown
    assert text.name(given, show=True) == given


def test_foreign_text_is_escaped_and_stands_alone() -> None:
    assert text.isolated('<i a="b">\u202e') == (
        "<bdi>&lt;i a=&#34;b&#34;&gt;⟨U+202E⟩</bdi>"
    )
    assert text.plain("<i>\n\u202eb\n") == "&lt;i&gt;\n⟨U+202E⟩b\n"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            "2026-11-22T14:10:44.123Z",
            '<time datetime="2026-11-22T14:10:44.123Z">2026-11-22 14:10:44 UTC</time>',
        ),
        (
            "2026-11-22T14:10:44+02:00",
            '<time datetime="2026-11-22T12:10:44.000Z">2026-11-22 12:10:44 UTC</time>',
        ),
        ("<b>", "<bdi>&lt;b&gt;</bdi>"),
        (None, "&ndash;"),
        ("0001-01-01T00:00:00+14:00", "<bdi>0001-01-01T00:00:00+14:00</bdi>"),
    ],
)
def test_time_is_written_for_readers_and_machines(
    given: str | None, shown: str
) -> None:
    assert text.moment(given) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0:00"),
        (6.6, "0:07"),
        (754, "12:34"),
        (3723, "1:02:03"),
        (90000, "25:00:00"),
    ],
)
def test_span_is_written_as_on_a_clock(seconds: float, shown: str) -> None:
    assert text.span(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 * 2**40, "3.0 TiB"),
        (2**52, "4096.0 TiB"),
    ],
)
def test_size_has_a_fitting_unit(count: int, shown: str) -> None:
    assert text.size(count) == shown
