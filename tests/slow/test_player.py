"""A recording in a real browser: seen, heard, read, from a folder and from a bucket."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.seaweed import reach
from tests.slow.browser import Stage, browser, check_page, looking
from tests.slow.processes import tell
from tests.slow.scale import scaled
from tests.web.recorded import CONVERSATION, HOSTILE, NAME, PARTICIPANT, Made

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Response

    from tests.slow.browser import Theme
    from tests.slow.bucket import Bucket

__all__ = ["browser"]

pytestmark = pytest.mark.slow

PATH = f"/calls/{NAME}"
LONG = NAME.replace("T14", "T15")
EVIL = NAME.replace("T14", "T16")
WORDY = NAME.replace("T14", "T17")
SILENT = NAME.replace("T14", "T18")
LONG_SECONDS = 600.0
WORDS = scaled(20_000, 100_000)
# A click has to lead to its word; there is nothing to be rounded on the way.
SEEK_TOLERANCE = 0.05
ADDRESS_LIFE = 3


def long_words() -> list[tuple[int, int, int, str]]:
    """A word each two seconds, by both sides in turns."""
    return [
        (1 + i // 10 % 2, 2000 * i, 2000 * i + 900, f"word{i}")
        for i in range(int(LONG_SECONDS / 2))
    ]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("player")
    Made(stops=[("paused", 1.0, 0.5)]).write(folder)
    Made(name=LONG, seconds=LONG_SECONDS, words=long_words()).write(folder)
    Made(
        name=EVIL,
        words=[(1, 0, 900, HOSTILE), (2, 1000, 1900, "<b>bold</b>")],
        changes={
            "participant": {
                "id": PARTICIPANT,
                "ani": HOSTILE,
                "aniName": HOSTILE,
                "dnis": HOSTILE,
            },
            "language": HOSTILE,
            "customConfig": {HOSTILE: HOSTILE},
        },
    ).write(folder)
    Made(
        name=WORDY,
        seconds=1.0,
        words=[
            (1 + i // 12 % 2, 360 * i, 360 * i + 300, f"word{i}") for i in range(WORDS)
        ],
    ).write(folder)
    Made(
        name=SILENT, peaks=False, script={"status": "failed", "reason": "no key"}
    ).write(folder)
    with Stage(folder, show_numbers=True) as stage:
        yield stage


def open_call(page: Page, name: str = NAME) -> None:
    page.goto(f"/calls/{name}")
    # `expect` describes the whole page each time it looks: too much for 100,000 words.
    page.wait_for_function("() => document.getElementById('turns').dataset.words > 0")
    expect(page.locator("#wave-box[data-lanes]")).to_be_visible()
    page.wait_for_function("() => document.getElementById('audio').readyState >= 1")
    page.evaluate(
        """() => {
            const audio = document.getElementById("audio");
            window.seeks = [];
            audio.addEventListener("seeked", () => window.seeks.push(audio.currentTime));
        }"""
    )


def current_time(page: Page) -> float:
    found = page.evaluate("document.getElementById('audio').currentTime")
    assert isinstance(found, int | float)
    return float(found)


def wait_time(page: Page, least: float) -> None:
    page.wait_for_function(
        "least => document.getElementById('audio').currentTime > least", arg=least
    )


def last_seek(page: Page, count: int) -> float:
    """Where the audio stood as it had come to its goal."""
    page.wait_for_function("count => window.seeks.length >= count", arg=count)
    return float(page.evaluate("window.seeks.at(-1)"))


def drawn(page: Page) -> list[int]:
    """How many columns of the waveform's upper and lower half have something in them."""
    found = page.evaluate(
        """() => {
            const canvas = document.getElementById("wave");
            const paint = canvas.getContext("2d");
            return [0, canvas.height / 2].map((top) => {
                const half = canvas.height / 2;
                const {data} = paint.getImageData(0, top, canvas.width, half);
                const tall = [];
                for (let x = 0; x < canvas.width; x += 1) {
                    let count = 0;
                    for (let y = 0; y < half; y += 1) {
                        count += data[4 * (y * canvas.width + x) + 3] > 0;
                    }
                    tall.push(count);
                }
                return new Set(tall).size;
            });
        }"""
    )
    return [int(each) for each in found]


def partial_answers(page: Page) -> list[Response]:
    """Collects what comes of audio from now on."""
    answers: list[Response] = []
    page.on(
        "response",
        lambda each: (
            answers.append(each)
            if "/audio/" in each.url or ("/files/" in each.url and ".wav" in each.url)
            else None
        ),
    )
    return answers


def test_recording_is_seen_heard_and_read(stage: Stage, browser: Browser) -> None:
    with looking(browser, stage.base) as page:
        answers = partial_answers(page)
        open_call(page)
        # Each side has an outline of its own, and is not a bar.
        assert min(drawn(page)) > 10
        expect(page.locator(".legend")).to_contain_text("external (customer)")
        expect(page.locator(".legend")).to_contain_text("no audio")

        page.locator("#audio").evaluate("audio => audio.play()")
        wait_time(page, 0.6)
        expect(page.locator(".word.lit")).to_have_text("Good ")
        before = current_time(page)
        wait_time(page, before + 0.3)

        page.locator(".word", has_text="there").click()
        assert abs(last_seek(page, 1) - 2.5) < SEEK_TOLERANCE
        expect(page.locator(".word.lit")).to_have_text(re.compile("there"))
        assert not page.locator("#audio").evaluate("audio => audio.paused")
        page.locator("#audio").evaluate("audio => audio.pause()")

        # The same with the keyboard alone.
        page.locator("#turns .word").first.click()
        assert abs(last_seek(page, 2) - 0.5) < SEEK_TOLERANCE
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert abs(last_seek(page, 3) - 1.5) < SEEK_TOLERANCE
        page.locator("#audio").evaluate("audio => audio.pause()")

        seek = page.locator("#seek")
        seek.focus()
        page.keyboard.press("Home")
        last_seek(page, 4)
        expect(seek).to_have_attribute("aria-valuetext", "0 seconds of 4 seconds")
        page.keyboard.press("ArrowRight")
        last_seek(page, 5)
        expect(seek).to_have_attribute("aria-valuetext", "4 seconds of 4 seconds")
        page.keyboard.press("Home")
        last_seek(page, 6)
        box = page.locator("#wave-box").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
        assert abs(last_seek(page, 7) - 2.0) < SEEK_TOLERANCE

        # One side alone, and both again.
        page.locator("#hear").select_option("1")
        page.locator("#hear").select_option("both")
        assert {each.status for each in answers} == {206}


def test_long_recording_is_fetched_in_parts(stage: Stage, browser: Browser) -> None:
    with looking(browser, stage.base) as page:
        answers = partial_answers(page)
        open_call(page, LONG)
        last = page.locator(".word").last
        last.scroll_into_view_if_needed()
        last.click()
        goal = 2.0 * (int(LONG_SECONDS / 2) - 1)
        assert abs(last_seek(page, 1) - goal) < SEEK_TOLERANCE
        wait_time(page, goal + 0.2)
        starts = [
            int(each.request.headers["range"].removeprefix("bytes=").partition("-")[0])
            for each in answers
        ]
        size = LONG_SECONDS * 32_000
        assert starts[0] == 0
        # Nothing of what lies between was asked for.
        assert max(starts) > 0.9 * size
        assert all(each.status == 206 for each in answers)


def test_spoken_word_is_kept_in_sight(stage: Stage, browser: Browser) -> None:
    with looking(browser, stage.base) as page:
        open_call(page, LONG)
        page.locator("#turns").scroll_into_view_if_needed()
        page.evaluate("document.getElementById('audio').currentTime = 400.2")
        lit = page.locator(".word.lit")
        expect(lit).to_have_text("word200 ")
        expect(lit).to_be_in_viewport()


@pytest.mark.parametrize(
    ("name", "theme", "phone"),
    [(NAME, "dark", True), (NAME, "light", False), (SILENT, "light", True)],
)
def test_page_is_for_everybody(
    stage: Stage, browser: Browser, name: str, theme: Theme, phone: bool
) -> None:
    with looking(browser, stage.base, theme=theme, phone=phone) as page:
        page.goto(f"/calls/{name}")
        expect(page.locator("#wave-box[data-lanes]")).to_be_visible()
        for each in page.locator("summary").all():
            each.click()
        if name == SILENT:
            expect(page.locator("#no-wave")).to_be_visible()
            expect(page.get_by_text("its making has failed. no key")).to_be_visible()
        else:
            expect(page.locator("#turns[data-words]")).to_be_attached()
        check_page(page)
        stamp = page.locator("h1 time")
        expect(stamp).to_contain_text("19:40:44")  # in India


def test_whatever_came_from_the_network_is_text(stage: Stage, browser: Browser) -> None:
    with looking(browser, stage.base) as page:
        open_call(page, EVIL)
        for each in page.locator("summary").all():
            each.click()
        page.locator(".word").first.click()
        expect(page).to_have_title("Call · audiohook")
        assert page.locator("main img, main b, main script:not([type])").count() == 0
        shown = page.locator("main").inner_text()
        assert shown.count("</script><img src=x") >= 6
        assert "⟨U+202E⟩gpj.exe" in shown
        assert "\u202e" not in shown
        assert "<b>bold</b>" in page.locator("#turns").inner_text()
        check_page(page)


def test_long_transcript_does_not_hold_the_page_up(
    stage: Stage, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    with looking(browser, stage.base) as page:
        page.add_init_script(
            """window.longest = 0;
            new PerformanceObserver((list) => {
                for (const each of list.getEntries()) {
                    window.longest = Math.max(window.longest, each.duration);
                }
            }).observe({type: "longtask", buffered: true});"""
        )
        began = time.monotonic()
        open_call(page, WORDY)
        took = time.monotonic() - began
        known = page.evaluate("document.getElementById('turns').dataset.words")
        assert known == str(WORDS)
        at = 360 * (WORDS - 5) / 1000
        spent = page.evaluate(
            """async (at) => {
                const {lastAtMost} = await import(
                    document.querySelector('script[src*="call.js"]').src
                        .replace("call.js", "transcript.js"));
                const numbers = Float64Array.from({length: 100000}, (_, i) => 360 * i);
                const began = performance.now();
                for (let i = 0; i < 1000; i += 1) {
                    lastAtMost(numbers, 1000 * at + i);
                }
                return performance.now() - began;
            }""",
            at,
        )
        longest = page.evaluate("window.longest")
        tell(
            capsys,
            f"{WORDS:,} words: there after {took:.2f} s, longest task"
            f" {longest:.0f} ms, current word found in {spent:.2f} µs",
        )


# From a bucket


@pytest.fixture
def far_stage(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    monkeypatch.setattr("audiohook.web.call.ADDRESS_LIFE", ADDRESS_LIFE)
    reach(bucket.store, monkeypatch)
    with Stage(tmp_path, s3_bucket=bucket.name) as stage:
        yield stage


def test_recording_of_a_bucket_is_heard_also_after_its_address_expired(
    far_stage: Stage, bucket: Bucket, browser: Browser
) -> None:
    call = far_stage.call(duration=300.0, conversation_id=CONVERSATION)
    far_stage.wait_done()
    with looking(browser, far_stage.base) as page:
        answers = partial_answers(page)
        page.goto("/recordings")
        (name,) = {each.rpartition("/")[0].rpartition("/")[2] for each in keys(bucket)}
        answer: Any = page.goto(f"/calls/{name}")
        policy = answer.headers["content-security-policy"]
        # The bucket's own origin, and no other.
        origin = bucket.store.url
        assert f"media-src 'self' {origin};" in policy
        open_again(page)
        # What the stand-in for AssemblyAI made of it.
        page.wait_for_function(
            "() => document.getElementById('turns').dataset.words > 0"
        )
        old = answers[-1].url
        assert old.startswith(origin)
        page.wait_for_timeout(1000 * (ADDRESS_LIFE + 1))
        assert httpx.get(old).status_code == 403
        assert min(drawn(page)) > 2
        goal = 280.0
        page.locator("#seek").evaluate(
            "(seek, goal) => {seek.value = goal; seek.dispatchEvent(new Event('input'))}",
            goal,
        )
        page.locator("#audio").evaluate("audio => {audio.play().catch(() => {})}")
        wait_time(page, goal + 0.3)
        assert current_time(page) < goal + 20
        # Another address was taken in its place.
        assert [each.status for each in answers].count(307) == 2
        assert (answers[-1].status, answers[-1].url == old) == (206, False)
        assert call.conversation_id in page.content()


def keys(bucket: Bucket) -> list[str]:
    return [each for each in bucket.sizes() if each.endswith("/call.json")]


def open_again(page: Page) -> None:
    expect(page.locator("#wave-box[data-lanes]")).to_be_visible()
    page.wait_for_function("() => document.getElementById('audio').readyState >= 1")
