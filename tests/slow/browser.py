"""A real browser, and a service in a thread for it to look at.

Playwright's synchronous interface keeps a loop of its own in the thread of the tests,
so the service has its loop elsewhere. The browser is Debian's, started once for all
tests of a module.
"""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
import trio
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from audiohook.control import Asker
from audiohook.simulator.assemblyai import DEFAULT_KEY, Pace, StandIn
from audiohook.simulator.client import place_call
from audiohook.simulator.options import CallOptions
from tests.house import KEY, make_service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page, Playwright

    from audiohook.call import Call
    from audiohook.service import Service
    from audiohook.simulator.report import CallReport

Theme = Literal["light", "dark"]

PATIENCE = 20.0
# A job of the stand-in, and how often it is looked for at first.
_JOB_SECONDS = 0.05
# Of a call whose test does not come to its end.
_LONGEST_CALL = 120.0
# Two channels of 8,000 samples.
_BYTES_A_SECOND = 16_000
_PHONE = {"width": 320, "height": 640}
_DESK = {"width": 1280, "height": 800}


class Stage:
    """A service with a stand-in for AssemblyAI, in a thread.

    Args:
        folder: Where it records.
        transcribes: Whether it has recordings transcribed.
        **flags: Its settings.

    Attributes:
        recorded: A call that was made before, if somebody made one.
    """

    def __init__(
        self, folder: Path, *, transcribes: bool = True, **flags: object
    ) -> None:
        self.folder = folder
        self._transcribes = transcribes
        self._flags = flags
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stage")
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._fault: BaseException | None = None
        self.service: Service | None = None
        self.port = 0
        self.recorded: CallOptions | None = None

    @property
    def base(self) -> str:
        """Address of its page."""
        assert self.service is not None
        return f"http://127.0.0.1:{self.service.admin_port}"

    def __enter__(self) -> Stage:
        self._thread.start()
        if not self._ready.wait(PATIENCE) or self._fault is not None:
            raise RuntimeError("the service did not start") from self._fault
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None and self._nursery is not None:
            self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001 - told to the test
            self._fault = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        flags = dict(self._flags)
        async with trio.open_nursery() as nursery:
            if self._transcribes:
                standin = StandIn(pace=Pace(processing=_JOB_SECONDS))
                flags["assemblyai_base_url"] = await nursery.start(standin.serve)
                flags.setdefault("assemblyai_api_key", DEFAULT_KEY)
            self.service = make_service(self.folder, **flags)  # type: ignore[arg-type]
            self.port = await nursery.start(self.service.run)
            self._nursery = nursery
            self._token = trio.lowlevel.current_trio_token()
            self._ready.set()
            await trio.sleep_forever()

    # Calls

    def options(self, **options: Any) -> CallOptions:  # noqa: ANN401
        uri = f"ws://127.0.0.1:{self.port}/api/v1/audiohook"
        return CallOptions(uri=uri, api_key=KEY, **options)

    def call(self, **options: Any) -> CallOptions:  # noqa: ANN401
        """Makes a call, as fast as it goes, and waits for its end."""
        chosen = self.options(**{"fast": True, **options})
        report: CallReport = trio.from_thread.run(
            place_call, chosen, trio_token=self._token
        )
        assert report.ok, report.breaches
        return chosen

    def begin(self, **options: Any) -> CallOptions:  # noqa: ANN401
        """Begins a call in real time, which goes on until it is ended."""
        chosen = self.options(**{"duration": _LONGEST_CALL, **options})

        def begin() -> None:
            assert self._nursery is not None
            self._nursery.start_soon(place_call, chosen)

        trio.from_thread.run_sync(begin, trio_token=self._token)
        return chosen

    def end(self, call: CallOptions, *, after: float = 0.0) -> None:
        """Ends a call that was begun.

        Args:
            call: Which; it is live.
            after: So many seconds of it have to be heard before.
        """

        def live() -> Call:
            assert self.service is not None
            (found,) = (
                each
                for each in self.service.desk.live_calls()
                if each.session_id == call.session_id
            )
            return found

        def is_heard() -> bool:
            heard: int = live()._lane.audio_bytes
            return heard >= _BYTES_A_SECOND * after

        async def end() -> None:
            await live().control.end(Asker("the test", None))

        self.wait(lambda: trio.from_thread.run_sync(is_heard, trio_token=self._token))
        trio.from_thread.run(end, trio_token=self._token)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Waits until something is so."""
        ends_at = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < ends_at, "it took too long"
            time.sleep(0.05)

    def wait_done(self) -> None:
        """Waits until each call is stored, transcribed, and in the index."""

        def is_done() -> bool:
            assert self.service is not None
            spool = self.folder / ".spool"
            left = [each for each in spool.glob("*-*-*-*-*") if each.is_dir()]
            return not left and not self.service.index.statistics().waiting

        self.wait(is_done)


def launch(playwright: Playwright) -> Browser:
    """Starts Debian's Chromium; it has to be there."""
    path = shutil.which("chromium")
    assert path is not None, "needs Debian's package chromium"
    # The sandbox does not work for root, as whom CI runs. What is shown is ours.
    return playwright.chromium.launch(
        executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    if shutil.which("chromium") is None:
        pytest.skip("needs Debian's package chromium")
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@contextmanager
def looking(
    browser: Browser, base: str, *, theme: Theme = "light", phone: bool = False
) -> Iterator[Page]:
    """Opens a window with nothing remembered; it must have run without faults.

    Args:
        browser: Whose.
        base: Address of the page.
        theme: What its user likes.
        phone: Whether it is as narrow as the narrowest phone.
    """
    context = browser.new_context(
        base_url=base,
        color_scheme=theme,
        viewport=_PHONE if phone else _DESK,  # type: ignore[arg-type]
        timezone_id="Asia/Kolkata",
        locale="en-GB",
    )
    faults: list[str] = []
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: (
                faults.append(message.text)
                if "Content Security Policy" in message.text
                else None
            ),
        )
        # No call may ever have one of these appear.
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        yield page
        assert faults == []
    finally:
        context.close()


def check_page(page: Page) -> None:
    """Checks what each page has to keep: nothing serious, and no sideways scrolling."""
    found = Axe().run(page).response["violations"]
    serious = [
        f"{each['id']}: {each['help']} {[node['html'] for node in each['nodes'][:3]]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == [], page.url
    width = page.evaluate("document.documentElement.scrollWidth")
    window = page.evaluate("document.documentElement.clientWidth")
    assert width <= window, f"{page.url} is {width} wide in a window of {window}"
