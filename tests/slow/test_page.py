"""The page in a real browser: live calls, what waits, recordings, and who gets in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from audiohook.simulator.assemblyai import script
from tests.slow.browser import PATIENCE, Stage, browser, check_page, looking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from tests.slow.browser import Theme

__all__ = ["browser"]

pytestmark = pytest.mark.slow

PASSWORD = "a long enough password"
# Without spaces, so that each is a word of a transcript.
MARK = "<script>alert('script')</script>"
IMAGE = "<img/src=x/onerror=alert('image')>"
TURNED = "abc\u202edef\u2066ghi"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        # Is transcribed while the first test looks at another.
        stage.recorded = stage.call(duration=2.0, ani="tel:+15550142")
        yield stage


def row_of(page: Page, session: str) -> str:
    return f'tr[data-session="{session}"]'


def wait_found(stage: Stage, page: Page, path: str, session: str) -> None:
    """Loads a page of recordings until there is that one."""

    def is_there() -> bool:
        page.goto(path)
        return page.locator(row_of(page, session)).count() == 1

    stage.wait(is_there)


def test_live_call_appears_moves_ends_and_is_found_by_a_word(
    stage: Stage, browser: Browser
) -> None:
    with looking(browser, stage.base) as page:
        page.goto("/")
        expect(page.get_by_text("No call is live.")).to_be_visible()
        call = stage.begin(language="en-US", ani="tel:+49301234567")
        row = page.locator(row_of(page, call.session_id))
        expect(row).to_be_visible()
        expect(page.locator('[data-total="live"]')).to_have_text("1")
        assert row.locator('[data-field="language"]').inner_text() == "en-US"
        assert row.locator('[data-field="from"]').inner_text() == "••••67"
        assert "1234567" not in page.content()
        ages: set[str] = set()
        levels: set[float] = set()
        for _ in range(int(10 * PATIENCE)):
            if len(ages) > 2 and len(levels) > 1 and max(levels) > -50:
                break
            ages.add(row.locator('[data-field="age"]').inner_text())
            meter = row.locator("meter").first
            levels.add(meter.evaluate("meter => meter.value"))
            page.wait_for_timeout(100)
        assert len(ages) > 2
        assert len(levels) > 1
        assert max(levels) > -50
        rate = page.locator('[data-total="rate"]')
        expect(rate).to_have_text(re.compile("KiB"))

        # Long enough for a line of the customer's.
        stage.end(call, after=5.0)
        expect(row).to_have_count(0)
        expect(page.get_by_text("No call is live.")).to_be_visible()
        stage.wait_done()
        wait_found(stage, page, "/recordings?text=parcel", call.session_id)

        page.goto("/")
        page.get_by_role("link", name="Recordings").click()
        page.get_by_label("Words that were said").fill("parcel")
        page.get_by_role("button", name="Search").click()
        row = page.locator(row_of(page, call.session_id))
        expect(row).to_be_visible()
        expect(row).to_contain_text("transcribed")
        # Times are those of whoever reads them.
        moment = row.locator("time")
        stamp = moment.get_attribute("datetime")
        assert stamp is not None
        shown = page.evaluate(
            "stamp => new Date(stamp).toLocaleTimeString('en-GB',"
            " {timeZone: 'Asia/Kolkata'})",
            stamp,
        )
        expect(moment).to_contain_text(shown)
        row.get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert call.conversation_id in page.content()

        page.goto("/recordings?text=zeppelin")
        expect(page.get_by_text("Nothing is found.")).to_be_visible()


def test_recordings_are_found_in_each_way(stage: Stage, browser: Browser) -> None:
    call = stage.recorded
    assert call is not None
    stage.wait_done()
    with looking(browser, stage.base) as page:
        for label, text in [
            ("Number", "555 0142"),
            ("Conversation id", call.conversation_id.upper()),
            ("Participant id", call.participant_id),
        ]:
            page.goto("/recordings")
            page.get_by_label(label).fill(text)
            page.keyboard.press("Enter")
            expect(page.locator("tbody tr")).to_have_count(1)
            expect(page.locator(row_of(page, call.session_id))).to_be_visible()
        page.goto("/recordings")
        # A day begins when it does for whoever asks.
        today = page.evaluate("new Date().toLocaleDateString('en-CA')")
        for label in ("From day", "To day"):
            page.get_by_label(label).fill(today)
        page.get_by_role("button", name="Search").click()
        expect(page.locator(row_of(page, call.session_id))).to_be_visible()
        assert "sinceOffset=-330" in page.url
        page.goto("/recordings?conversation=x")
        expect(page.get_by_role("alert")).to_contain_text("a UUID")


def test_what_comes_from_the_network_is_text(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "_CUSTOMER", (f"word {MARK} {IMAGE} {TURNED}",))
    # There may be no time for all of that.
    monkeypatch.setattr(script, "_SHORT", (f"word{MARK}",))
    with Stage(tmp_path) as stage, looking(browser, stage.base) as page:
        options = {
            "ani_name": MARK + TURNED,
            "ani": IMAGE,
            "dnis": f'"><b>{TURNED}',
            "language": IMAGE,
            "custom_config": {MARK: IMAGE, "x": TURNED},
        }
        page.goto("/")
        call = stage.begin(**options)
        row = page.locator(row_of(page, call.session_id))
        expect(row).to_be_visible()
        assert row.locator('[data-field="name"]').inner_text() == (
            f"{MARK}abc⟨U+202E⟩def⟨U+2066⟩ghi"
        )
        assert row.locator('[data-field="language"]').inner_text() == IMAGE
        assert row.locator("script, img, b").count() == 0
        # Also as it is before the script comes.
        page.reload()
        expect(row.locator('[data-field="name"]')).to_contain_text(MARK)
        stage.end(call, after=3.0)
        expect(row).to_have_count(0)
        stage.wait_done()
        wait_found(stage, page, "/recordings?text=word", call.session_id)
        for path in ("/recordings?text=word", "/recordings", "/waiting"):
            page.goto(path)
            if path != "/waiting":
                row = page.locator(row_of(page, call.session_id))
                expect(row).to_contain_text(MARK)
                expect(row).to_contain_text("⟨U+202E⟩")
            assert page.locator("main script, main img, main b").count() == 0
        row = page.locator(row_of(page, call.session_id))
        page.goto("/recordings")
        row.get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.locator("main script, main img, main b").count() == 0
        assert "\u202e" not in page.content()


def test_somebody_logs_in_and_out(tmp_path: Path, browser: Browser) -> None:
    with (
        Stage(tmp_path, admin_password=PASSWORD, transcribes=False) as stage,
        looking(browser, stage.base) as page,
    ):
        page.goto("/recordings?text=x")
        expect(page).to_have_url(re.compile("/login"))
        check_page(page)
        # With the keyboard alone.
        page.keyboard.type("not the password")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("not the password")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("/recordings[?]text=x$"))
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(re.compile("/login"))
        page.goto("/")
        expect(page).to_have_url(re.compile("/login"))


def test_post_from_another_origin_is_refused(tmp_path: Path, browser: Browser) -> None:
    with (
        Stage(tmp_path, admin_password=PASSWORD, transcribes=False) as other,
        looking(browser, other.base) as page,
    ):
        page.goto("/login")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Live")).to_be_visible()
        page.goto("/waiting")
        token = page.locator('form[action="/waiting/retry"] input').get_attribute(
            "value"
        )
        assert token is not None
        page.get_by_role("button", name="Try all again now").click()
        expect(page.get_by_role("status")).to_contain_text("being tried again")

        # Even of one who has found out the token. The second is on this machine, so
        # that it has the cookie besides.
        for origin in ("http://evil.example", "http://127.0.0.1:9"):
            elsewhere = page.context.new_page()
            elsewhere.route(
                f"{origin}/",
                lambda route: route.fulfill(
                    content_type="text/html",
                    body=f'<form method=post action="{other.base}/waiting/retry">'
                    f'<input name=token value="{token}"><button>x</button></form>',
                ),
            )
            elsewhere.goto(f"{origin}/")
            with elsewhere.expect_response("**/waiting/retry") as answer:
                elsewhere.get_by_role("button").click()
            assert answer.value.status == 403
            has_cookie = "cookie" in answer.value.request.all_headers()
            assert has_cookie == (origin != "http://evil.example")
            elsewhere.close()


def test_what_needs_mending_says_how(tmp_path: Path, browser: Browser) -> None:
    wrong = Stage(tmp_path, assemblyai_api_key="no-key-of-the-account")
    with wrong as stage, looking(browser, stage.base) as page:
        page.goto("/waiting")
        expect(page.locator('[data-figure="parked"]')).to_have_text("0")
        call = stage.call(duration=2.0)
        row = page.locator(row_of(page, call.session_id)).first
        # The page is not loaded anew.
        heading = page.get_by_role("heading", name="Needs mending")
        expect(heading).to_be_visible()
        expect(page.locator('[data-figure="parked"]')).to_have_text("1")
        # Its times are those of whoever reads them, also of what comes later.
        expect(row.locator("time").first).not_to_contain_text("UTC")
        expect(row).to_contain_text("correct ASSEMBLYAI_API_KEY")
        check_page(page)
        # The next try would be in half a minute.
        page.get_by_role("button", name="Try all again now").click()
        expect(page.get_by_role("status")).to_contain_text("being tried again")
        expect(row).to_contain_text("parked")
        page.set_viewport_size({"width": 320, "height": 640})
        check_page(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_page_is_fit_for_all(stage: Stage, browser: Browser, theme: Theme) -> None:
    call = stage.begin(ani_name="Anna " + f"{theme}name" * 10)
    with looking(browser, stage.base, theme=theme, phone=True) as page:
        page.goto("/")
        expect(page.locator(row_of(page, call.session_id))).to_be_visible()
        check_page(page)
        for path in ("/waiting", "/recordings", "/recordings?conversation=x"):
            page.goto(path)
            check_page(page)
        page.goto("/")
        page.get_by_label("Find a live call").fill(f"{theme}name")
        page.keyboard.press("Enter")
        # That of the other theme is still live if its test failed.
        found = re.compile("1 of [12] live calls match")
        expect(page.get_by_role("status")).to_contain_text(found)
        expect(page.locator(row_of(page, call.session_id))).to_be_visible()
        check_page(page)
        page.goto("/live?find=nobody")
        check_page(page)
        page.goto("/calls/2026-nothing")
        check_page(page)
    with looking(browser, stage.base, theme=theme) as page:
        page.goto("/")
        expect(page.locator(row_of(page, call.session_id))).to_be_visible()
        check_page(page)
        page.goto("/recordings")
        check_page(page)
        page.goto("/")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
    stage.end(call)
