"""What the page costs: a look at 10,000 live calls, and a search in many recordings.

Run with ``AUDIOHOOK_BENCH_RECORDINGS=100000 python -m pytest bench/test_page.py -q -s``;
without that there are fewer recordings, which take a while to make. There is a look a second while
anybody looks, so that milliseconds of CPU a look are tenths of a percent of a core.
``loop`` is the event loop's own thread; ``all`` has the thread that measures levels
besides.
"""

from __future__ import annotations

import html
import json
import os
import random
import re
import time
import uuid
from itertools import accumulate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import httpx
import structlog
import trio

from audiohook._divert import Lane
from audiohook.admission import Place
from audiohook.authentication import Authenticator, Credentials
from audiohook.call import Call
from audiohook.call_surroundings import Surroundings
from audiohook.desk import CallDesk
from audiohook.glance import Glance
from audiohook.index.database import Database
from audiohook.index.keeper import INDEX_FOLDER
from audiohook.ingest.pump import Pump
from audiohook.logs import Limiter
from audiohook.metrics import Metrics
from audiohook.web.feed import Feed
from audiohook.web.live import MOST_CALLS, LiveSight, difference
from audiohook.web.pages import Pages
from bench.test_index import RECORDINGS, WORDS, conversation, entry, word
from tests.house import house

if TYPE_CHECKING:
    from pathlib import Path

    from audiohook.protocol.events import OpenReceived

CALLS = int(os.environ.get("AUDIOHOOK_BENCH_CALLS", "10000"))
LOOKS = 30
OLDER = re.compile(r'href="([^"]+)" rel="next"')
SEARCHES: dict[str, dict[str, str]] = {
    "newest": {},
    "rare word": {"text": "needle"},
    "common word": {"text": word(0)},
    "common words": {"text": f"{word(0)} {word(1)} {word(2)}"},
    "beginning of a word": {"text": f"{word(1)[:4]}*"},
    "number": {"number": "030 0001234"},
    "number of all": {"number": "0800 1234"},
    "conversation": {"conversation": conversation(RECORDINGS // 3)},
    "participant": {"participant": conversation(123 + 10**10)},
    "day": {"since": "2026-05-29", "until": "2026-05-29"},
    "common word of a day": {"text": word(0), "since": "2026-05-29"},
}
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
    call._recording._spooled = cast(
        "Any", SimpleNamespace(record=record, folder=folder)
    )
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
    feed = Feed(LiveSight(shown, Pages(show_numbers=False)).look, difference)
    await feed._look()
    whole = len(cast("Any", feed._latest).text_for(0))
    loop, everything, sent = [], [], []
    chance = random.Random(5)
    for look in range(LOOKS):
        for number, call in enumerate(desk.newest_calls(MOST_CALLS)):
            # Everybody speaks, now louder and now softer, and one in five has pinged.
            loudness = bytes([chance.randrange(256)]) * SECOND_OF_AUDIO
            (cast("Any", call)._recording._spooled.folder / "audio.ulaw").write_bytes(
                loudness
            )
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


async def test_cost_of_finding(tmp_path: Path) -> None:
    """What somebody waits for who searches, and goes to the next page."""
    spool = tmp_path / ".spool" / INDEX_FOLDER
    fill(spool)
    async with house(tmp_path) as it:
        base = f"http://127.0.0.1:{it.service.admin_port}"
        async with httpx.AsyncClient(base_url=base) as client:
            for name, question in SEARCHES.items():
                path, shown = f"/recordings?{urlencode(question)}", []
                for _ in range(2):
                    took = []
                    for _ in range(LOOKS):
                        before = time.perf_counter()
                        answer = await client.get(path)
                        took.append(time.perf_counter() - before)
                        assert answer.status_code == 200
                    took.sort()
                    rows = answer.text.count("data-session=")
                    shown.append(f"{took[LOOKS // 2] * 1000:5.1f} ms ({rows} found)")
                    older = OLDER.search(answer.text)
                    if older is None:
                        break
                    path = html.unescape(older[1])
                print(f"{name:20} first page {', next '.join(shown)}")


def fill(folder: Path) -> None:
    """Makes an index as that of `bench.test_index`."""
    chance = random.Random(5)
    vocabulary = [word(number) for number in range(20_000)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(vocabulary))))
    database = Database(folder)
    for first in range(0, RECORDINGS, 1000):
        batch = []
        for number in range(first, first + 1000):
            words = chance.choices(vocabulary, cum_weights=weights, k=WORDS)
            if number == RECORDINGS // 2:
                words.append("needle")
            batch.append((entry(number), " ".join(words)))
        database.put(batch)
    # The store has been gone through, so that nobody does it now.
    database.end_pass(0)
    database.close()
