from __future__ import annotations

import pytest

from tests.printed import assert_alike, assert_printed, is_form_of, read_shown


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("✓ 3 calls", "✓ 17 calls", True),
        ("✓ 3 calls", "✗ 17 calls", False),
        ("  wrote 320,044 bytes", "wrote  5 bytes", True),
        ("at PT1S", "at PT0.25S", True),
        ("at PT1S", "at 1 s", False),
        ("it says: …", "it says: Access Denied.", True),
        ("it says: …", "it said: Access Denied.", False),
        ("s3.md", "s4.md", False),
        ("<start>_<conversation>_<participant>/<the same>.wav", "a/b.wav", False),
    ],
)
def test_lines_are_the_same_but_for_numbers(
    shown: str, printed: str, same: bool
) -> None:
    assert is_form_of(shown, printed) == same


def test_lines_come_in_order_and_others_may_come_between() -> None:
    assert_printed("a 1\n\nb", "a 2\nother\nb\n")
    with pytest.raises(AssertionError, match="a 1"):
        assert_printed("b\na 1", "a 2\nb")


def test_json_of_a_page_may_leave_out_what_it_says_it_does() -> None:
    assert read_shown('"a": 1, "b": {…}, "c": [1, …]') == {
        "a": 1,
        "b": {"…": None},
        "c": [1, "…"],
    }
    assert_alike(
        read_shown('{"a": {…as above…}, "b": [1, …]}'), {"a": {"x": 1}, "b": [2, 3]}
    )


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ('{"a": 1}', {"a": 1, "b": 2}),
        ('{"a": 1, …}', {"b": 2}),
        ('{"a": 1}', {"a": "1"}),
        ('{"a": null}', {"a": "x"}),
        ('{"a": true}', {"a": 1}),
        ('{"a": [1]}', {"a": [1, 2]}),
        ('{"a": [{"b": 1}]}', {"a": [{"b": 1, "c": 2}]}),
    ],
)
def test_member_that_is_not_there_or_of_another_type_is_found(
    shown: str, real: object
) -> None:
    with pytest.raises(AssertionError):
        assert_alike(read_shown(shown), real)
