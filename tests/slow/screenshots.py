"""Pictures of the page for the guides: a running service, simulated calls, real speech.

``make screenshots`` runs it. What is said is Debian's recorded prompts, what is read is
what the stand-in for AssemblyAI makes of them.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from playwright.sync_api import expect, sync_playwright

from audiohook.protocol.timeline import SAMPLE_RATE_HZ
from tests.slow.browser import Stage, launch, looking
from tests.slow.processes import ROOT
from tests.slow.test_speech import PROMPTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Locator, Page

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 150_000

CALLERS = (
    ("Anna Berger", "tel:+493055501201", "de-DE"),
    ("Luis Romero", "tel:+34915550142", "es-ES"),
    ("Claire Dubois", "tel:+33155501433", "fr-FR"),
    ("James Whitfield", "tel:+442055501244", "en-GB"),
    ("Noor Haddad", "tel:+31205550155", "nl-NL"),
    ("Maya Lindqvist", "tel:+46855501266", "sv-SE"),
)
LIVE_SECONDS, RECORDED_SECONDS = 60.0, 40.0


def write_speech(path: Path, seconds: float, first: int) -> Path:
    """Writes two people who take turns, each on a channel of their own."""
    prompts = sorted(PROMPTS.glob("*.wav"))
    wanted = round(seconds * SAMPLE_RATE_HZ)
    stereo = np.zeros((wanted, 2), "<i2")
    place, turns = 0, itertools.cycle((0, 1))
    for prompt in prompts[first:]:
        with wave.open(str(prompt)) as source:
            samples = np.frombuffer(source.readframes(source.getnframes()), "<i2")
        end = min(wanted, place + len(samples))
        stereo[place:end, next(turns)] = samples[: end - place]
        place = end + SAMPLE_RATE_HZ // 4
        if place >= wanted:
            break
    with wave.open(str(path), "wb") as target:
        target.setnchannels(2)
        target.setsampwidth(2)
        target.setframerate(SAMPLE_RATE_HZ)
        target.writeframes(stereo.tobytes())
    return path


def pictures(stage: Stage, browser: Browser, folder: Path) -> Iterator[str]:
    """Takes all of them, and yields their names."""
    for number, (name, ani, language) in enumerate(CALLERS):
        wav = write_speech(folder / f"{number}.wav", RECORDED_SECONDS, number * 40)
        stage.call(wav=wav, ani_name=name, ani=ani, language=language)
    stage.wait_done()
    for number, (name, ani, language) in enumerate(CALLERS[:4]):
        wav = write_speech(folder / f"l{number}.wav", LIVE_SECONDS, 300 + number * 40)
        stage.begin(wav=wav, ani_name=name, ani=ani, language=language)
    for theme in ("light", "dark"):
        with looking(browser, stage.base, theme=theme) as page:
            page.goto("/")
            expect(page.locator("#calls tbody tr")).to_have_count(4)
            # Until they have spoken, and pinged.
            page.wait_for_timeout(6000 if theme == "light" else 1500)
            yield shoot(page, f"page-live-{theme}")
            page.goto("/recordings")
            expect(page.locator("tbody tr")).to_have_count(len(CALLERS))
            yield shoot(page, f"page-recordings-{theme}")
            page.locator("tbody a").first.click()
            page.wait_for_load_state()
            page.wait_for_timeout(1000)
            yield shoot(page, f"page-call-{theme}")
    with looking(browser, stage.base, phone=True) as page:
        page.goto("/")
        page.wait_for_timeout(1500)
        yield shoot(page, "page-live-phone")


def pictures_of_trouble(folder: Path, browser: Browser) -> Iterator[str]:
    """Takes those of a service that has a wrong key for transcription."""
    wrong = Stage(folder / "trouble", assemblyai_api_key="no-key-of-the-account")
    with wrong as stage:
        for number in range(3):
            wav = write_speech(folder / f"w{number}.wav", 5.0, number * 40)
            stage.call(wav=wav)
        for theme in ("light", "dark"):
            with looking(browser, stage.base, theme=theme) as page:
                parked = page.locator('[data-figure="parked"]')

                def is_parked(page: Page = page, parked: Locator = parked) -> bool:
                    page.goto("/waiting")
                    return parked.inner_text() != "0"

                stage.wait(is_parked)
                yield shoot(page, f"page-waiting-{theme}")


def shoot(page: Page, name: str) -> str:
    path = IMAGES / f"{name}.png"
    data = page.screenshot(path=path)
    assert len(data) < MOST_BYTES, f"{name} is of {len(data)} bytes"
    return f"{path.relative_to(ROOT)}: {len(data)} bytes"


def main() -> None:
    """Takes all pictures."""
    if not PROMPTS.is_dir():
        sys.exit("needs Debian's package asterisk-core-sounds-en-wav")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as playwright,
        Stage(Path(folder) / "recordings", ingest_interval=0.2) as stage,
    ):
        browser = launch(playwright)
        for line in (
            *pictures(stage, browser, Path(folder)),
            *pictures_of_trouble(Path(folder), browser),
        ):
            print(line)  # noqa: T201 - a command
        browser.close()


if __name__ == "__main__":
    main()
