"""What the page of live calls costs the service: one look, with 10,000 live calls.

Run with ``python -m pytest bench/test_page.py -q -s``. There is a look a second while
anybody looks, so that milliseconds of CPU a look are tenths of a percent of a core.
``loop`` is the event loop's own thread; ``all`` has the thread that measures levels
besides.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import structlog
import trio

from audiohook._divert import Lane
from audiohook.admission import Place
from audiohook.authentication import Authenticator, Credentials
from audiohook.call import Call, Surroundings
from audiohook.desk import CallDesk
from audiohook.glance import Glance
from audiohook.ingest.pump import Pump
from audiohook.logs import Limiter
from audiohook.metrics import Metrics
from audiohook.web.feed import MOST_CALLS, Feed
from audiohook.web.pages import Pages

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.protocol.events import OpenReceived

CALLS = int(os.environ.get("AUDIOHOOK_BENCH_CALLS", "10000"))
LOOKS = 30
SECOND_OF_AUDIO = 16_000


def some_id(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


def make_call(number: int, around: Surroundings, folder: Path) -> Call:
    session = some_id(number)
    stream = cast("Any", SimpleNamespace(lane=Lane()))
    credentials = Credentials("key", session, some_id(1), some_id(2), 0)
    call = Call(stream, credentials, around, Place(None))
    message = {
        "version": "2",
        "id": session,
        "type": "open",
        "seq": 1,
        "serverseq": 0,
        "position": "PT0S",
        "parameters": {
            "organizationId": some_id(1),
            "conversationId": some_id(number + 10**6),
            "participant": {
                "id": some_id(number + 2 * 10**6),
                "ani": f"+4930{number:07d}",
                "aniName": f"Caller {number}",
                "dnis": "+498001234",
            },
            "media": [
                {
                    "type": "audio",
                    "format": "PCMU",
                    "channels": ["external", "internal"],
                    "rate": 8000,
                }
            ],
            "language": "en-US",
        },
    }
    (event,) = call._session.receive_text(
        json.dumps(message), now=trio.current_time(), audio_bytes=0
    )
    call.opened = cast("OpenReceived", event)
    call._session.accept(call.opened.media)
    call._session.data_to_send()
    opened = SimpleNamespace(language="en-US")
    record = SimpleNamespace(languages=[], opened=opened)
    call._spooled = cast("Any", SimpleNamespace(record=record, folder=folder))
    return call


async def test_cost_of_looking(tmp_path: Path) -> None:
    metrics, log = Metrics(), structlog.get_logger()
    around = Surroundings(
        authenticator=Authenticator({}),
        pump=cast("Any", None),
        spool=cast("Any", None),
        metrics=metrics,
        log=log,
        noise=Limiter(log),
        refusal=lambda: None,
        opened=lambda *_: None,
        sealed=lambda _: None,
    )
    desk = CallDesk(around)
    for number in range(CALLS):
        folder = tmp_path / str(number)
        if number >= CALLS - MOST_CALLS:
            folder.mkdir()
            (folder / "audio.ulaw").write_bytes(os.urandom(SECOND_OF_AUDIO))
        desk._live[make_call(number, around, folder)] = None
    pump = Pump(0.2)

    def standing() -> Any:  # noqa: ANN401
        return SimpleNamespace(
            handshakes=0,
            draining=False,
            can_record=True,
            refusal=None,
            pump=pump.statistics(),
        )

    glance = Glance(desk, metrics, standing, clock=time.time)
    shown = cast("Any", SimpleNamespace(live=glance.look, clock=time.time))
    feed = Feed(shown, Pages(show_numbers=False))
    await feed._look()
    whole = len(cast("Any", feed._latest).text_for(0))
    loop, everything, sent = [], [], []
    chance = random.Random(5)
    for look in range(LOOKS):
        for number, call in enumerate(desk.newest_calls(MOST_CALLS)):
            # Everybody speaks, now louder and now softer, and one in five has pinged.
            loudness = bytes([chance.randrange(256)]) * SECOND_OF_AUDIO
            (cast("Any", call)._spooled.folder / "audio.ulaw").write_bytes(loudness)
            if number % 5 == look % 5:
                call._session._pinged_at = trio.current_time()
        before = time.thread_time(), time.process_time()
        await feed._look()
        frame = cast("Any", feed._latest)
        sent.append(len(frame.text_for(frame.number - 1)))
        loop.append(time.thread_time() - before[0])
        everything.append(time.process_time() - before[1])
    loop.sort()
    everything.sort()
    middle = LOOKS // 2
    print(
        f"\n{CALLS} calls, {MOST_CALLS} shown: loop {loop[middle] * 1000:.2f} ms a look"
        f" (worst {loop[-1] * 1000:.2f}), all {everything[middle] * 1000:.2f} ms;"
        f" first event {whole} bytes, then {sorted(sent)[middle]} each"
    )
    assert len(frame.state["calls"]) == min(MOST_CALLS, CALLS)
