"""Somebody who looks after the service on a machine that was booted for a test."""

from __future__ import annotations

import json
import re
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from tests.house import Recording
from tests.slow.furniture import TO_BE_WRITTEN
from tests.slow.machine import TYPE_SECONDS
from tests.slow.processes import numbered_audio, sound_audio, write_wav

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.slow.machine import Machine, Typed

OURS = "/opt/audiohook/bin/audiohook"
PORT = 3000
WAIT_SECONDS = 30.0
_LOOK_SECONDS = 0.1
# It wants a terminal, though its editor here needs none.
_EDIT = "script --quiet --return --command 'systemctl edit {}' /dev/null"


@dataclass(slots=True)
class Call:
    """A call that somebody makes on the machine, and what is to be stored of it.

    Attributes:
        number: What its audio says, in every block.
        seconds: How long it is.
        key: The API key that it comes with.
        conversation: Its id.
        typed: What came of the command, once it has ended.
    """

    number: int
    seconds: float
    key: str
    conversation: str = field(default_factory=lambda: str(uuid.uuid4()))
    typed: Typed | None = None

    @property
    def audio(self) -> bytes:
        return numbered_audio(self.number, self.seconds)


@dataclass(slots=True)
class Console:
    """Root's shell on a machine, and what is seen of the service from there.

    Attributes:
        machine: The machine.
    """

    machine: Machine
    _calls: int = 0

    @property
    def store(self) -> Path:
        """The folder of the service."""
        return self.machine.root / "var/lib/audiohook"

    @asynccontextmanager
    async def explained(self) -> AsyncIterator[None]:
        """Prints the machine's log if what is done meanwhile goes wrong."""
        try:
            yield
        except BaseException:
            with trio.CancelScope(deadline=trio.current_time() + 10, shield=True):
                print(await self.machine.look())  # noqa: T201
            raise

    async def type(self, text: str, *, seconds: float = TYPE_SECONDS) -> str:
        """Types what must go well, as root; what it prints."""
        return await self.machine.type(text, user="root", seconds=seconds)

    async def try_to(self, text: str) -> Typed:
        """Types what may fail, as root."""
        return await self.machine.try_to(text, user="root")

    async def succeeds(self, text: str) -> bool:
        """Types what may fail; whether it has gone well."""
        return (await self.try_to(text)).code == 0

    def lay_out(self, text: str) -> None:
        """Has the editor put this into what is edited next."""
        (self.machine.root / TO_BE_WRITTEN).write_text(f"{text}\n")

    async def edit_unit(self, unit: str, text: str) -> None:
        """Makes a drop-in, as somebody would."""
        self.lay_out(text)
        await self.type(_EDIT.format(unit))

    async def property(self, name: str, unit: str = "audiohook") -> str:
        """Asks the service manager for a property of a unit."""
        return (await self.type(f"systemctl show --value -p {name} {unit}")).strip()

    async def lines(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Returns the log's lines of that name, of all instances so far."""
        log = await self.type(
            f"journalctl --no-pager -o cat -u 'audiohook*' --grep '\"event\": \"{event}\"'"
            " || true"
        )
        found = [json.loads(line) for line in log.splitlines() if line[:1] == "{"]
        return [
            line
            for line in found
            if all(line[name] == value for name, value in fields.items())
        ]

    async def wait(
        self, condition: Callable[[], Awaitable[object]], seconds: float = WAIT_SECONDS
    ) -> None:
        """Waits until something holds."""
        with trio.fail_after(seconds):
            while not await condition():  # noqa: ASYNC110 - on another machine
                await trio.sleep(_LOOK_SECONDS)

    async def wait_logged(self, event: str, **fields: object) -> None:
        """Waits for a line of the log."""
        await self.wait(partial(self.lines, event, **fields))

    # Calls.

    def new_call(self, seconds: float, key: str) -> Call:
        """Thinks of a call that no other is like."""
        self._calls += 1
        return Call(self._calls, seconds, key)

    async def place(
        self,
        call: Call,
        *options: str,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> Typed:
        """Makes a call; it has started once it is open.

        Args:
            call: The call.
            *options: Of the command besides.
            task_status: Told when the service has taken it.
        """
        path = f"srv/{call.conversation}.wav"
        write_wav(self.machine.root / path, call.audio)
        command = (
            f"{OURS} call ws://127.0.0.1:{PORT}/ --api-key {call.key} --wav /{path}"
            f" --conversation {call.conversation} {' '.join(options)}"
        )
        async with trio.open_nursery() as nursery:

            async def tell_opened() -> None:
                await self.wait_logged("call_opened", conversation=call.conversation)
                task_status.started()

            if task_status is not trio.TASK_STATUS_IGNORED:
                nursery.start_soon(tell_opened)
            call.typed = await self.try_to(command)
        return call.typed

    async def wait_spooled(self, call: Call, audio_bytes: int) -> None:
        """Waits until so much of a call's audio is on the disk."""

        async def is_there() -> bool:
            for journal in self.store.glob(".spool/[!.]*/journal.jsonl"):
                if call.conversation in journal.read_text():
                    audio = journal.with_name("audio.ulaw")
                    return audio.stat().st_size >= audio_bytes
            return False

        await self.wait(is_there)

    async def wait_stored(self, call: Call) -> Recording:
        """Waits until a call is in the store."""

        async def is_there() -> bool:
            return self._find(call) is not None

        await self.wait(is_there)
        found = self._find(call)
        assert found is not None
        return found

    def _find(self, call: Call) -> Recording | None:
        for path in self.store.glob(f"calls/*{call.conversation}*/call.json"):
            return Recording(path.parent)
        return None

    async def check_whole(self, call: Call) -> None:
        """Checks that a call went well, and is stored as it was sent."""
        assert call.typed is not None
        assert call.typed.code == 0, call.typed
        recording = await self.wait_stored(call)
        assert recording.facts["ended"]["complete"] is True
        assert sound_audio(recording, self.store) == call.audio

    async def check_cut(self, call: Call) -> None:
        """Checks that of a call that was cut off there is what had come by then."""
        assert call.typed is not None
        assert call.typed.code == 1, call.typed
        recording = await self.wait_stored(call)
        assert recording.facts["ended"]["complete"] is False
        raw = sound_audio(recording, self.store)
        assert raw
        assert call.audio.startswith(raw)
        assert len(raw) < len(call.audio)


def next_steps(printed: str) -> list[str]:
    """Returns what `audiohook install-service` says is to be typed next."""
    found = re.findall(r"^    (.+)$", printed, re.MULTILINE)
    assert found, printed
    return found
