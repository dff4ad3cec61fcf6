"""A call becomes objects in the store, once, however often it is tried.

What is to be stored is written into the call's journal first, then what the
store has confirmed of it. So any process can go on where another was stopped,
with the settings of the first, and makes the same bytes.

Where the store takes parts, those of a long call go while it lives, and what is
left to do when it ends does not depend on how long it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from audiohook.call_settings import Mode
from audiohook.errors import KeyExistsError, SpoolError, UploadError
from audiohook.protocol.timeline import Timeline
from audiohook.recording.dialogue import lines_of
from audiohook.recording.herald import Nobody
from audiohook.recording.journal import Delivered, Done, Planned, Stored
from audiohook.storage import call_json
from audiohook.storage.base import BytesBlob, MultipartStore
from audiohook.storage.layout import (
    dialogue_key,
    in_bucket,
    peaks_key,
    raw_key,
    wav_files,
)
from audiohook.storage.multipart import PartsUpload
from audiohook.storage.summary import metadata, recording_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from audiohook.recording.herald import Herald
    from audiohook.recording.render import Gaps, Layout, Rendering
    from audiohook.recording.spool import Spool
    from audiohook.recording.spooled import SpooledCall
    from audiohook.recording.transcripts import TranscriptPlanned
    from audiohook.recording.wav import Encoding
    from audiohook.storage.base import Blob, Store, StoredObject

SECONDS = 1.0

# Sessions of one conversation and participant that began in one millisecond.
_NAMES_LIMIT: Final = 100
# At the end of a name; no UUID ends in so few digits after an underscore.
_NUMBER: Final = re.compile(r"_([0-9]{1,3})\Z")
# A file has at most so many bytes for each of the audio; see `CallUpload.ready`.
_BYTES_PER_BYTE: Final = 2
# Each reading of a whole object keeps a core busy.
_READINGS: Final = 2
# Between tries to give up uploads that nobody knows of.
_STRAY_PAUSES: Final = (0.5 * SECONDS, 2 * SECONDS, 8 * SECONDS)


PlanTranscripts: TypeAlias = (
    "Callable[[SpooledCall, Mapping[str, Rendering]],"
    " Awaitable[Sequence[TranscriptPlanned]]]"
)
"""Decides on the transcripts of a call, given its WAV files by their keys."""


@dataclass(frozen=True, slots=True)
class _Object:
    """One object of a call.

    Attributes:
        key: Where it is to be.
        blob: What.
        final_bytes: How much of it will not change any more.
        about: What is to be kept beside it.
    """

    key: str
    blob: Blob
    final_bytes: int
    about: Mapping[str, str]


class Uploader:
    """Knows what is stored of calls, and where.

    Args:
        store: Where they go.
        spool: Where they are.
        prefix: What all keys begin with, such as ``calls/``.
        encoding: How the WAV is encoded.
        layout: What becomes of two channels.
        gaps: What becomes of gaps.
        keep_raw: Whether the audio as received is stored beside the WAV.
        keep_peaks: Whether what a waveform is drawn from is stored beside it too.
        part_bytes: Size of the first part of an upload; at least what the store
            asks for.
        plan_transcripts: Decides on transcripts once all audio of a call is
            stored; without it there are none.

    Attributes:
        noted: Told of the JSON of each call that is stored.
        herald: Told of each call that is stored.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        *,
        prefix: str,
        encoding: Encoding,
        layout: Layout,
        gaps: Gaps,
        keep_raw: bool,
        keep_peaks: bool = False,
        part_bytes: int = 0,
        plan_transcripts: PlanTranscripts | None = None,
    ) -> None:
        self.store = store
        self.spool = spool
        self.plan_transcripts = plan_transcripts
        self.noted: call_json.Noted = lambda _key, _summary: None
        self.herald: Herald = Nobody()
        self._prefix = prefix
        self._encoding = encoding
        self._layout = layout
        self._gaps = gaps
        self._keep_raw = keep_raw
        self._keep_peaks = keep_peaks
        self._in_parts = store if isinstance(store, MultipartStore) else None
        self._part_bytes = part_bytes
        self._threads = trio.CapacityLimiter(_READINGS)

    @property
    def takes_parts(self) -> bool:
        """Whether there is anything to do for calls that live."""
        return self._in_parts is not None

    def take(
        self, call: SpooledCall, *, confirmed: Callable[[], None] = lambda: None
    ) -> CallUpload:
        """Begin, or go on, to bring a call to the store.

        Args:
            call: Live or sealed.
            confirmed: Called whenever the store has confirmed something of it.
        """
        return CallUpload(self, call, confirmed)

    def plan(self, call: SpooledCall) -> Planned:
        """Tell what is to be stored of a call; what was once planned is kept."""
        if call.record.planned is not None:
            return call.record.planned
        own = call.record.opened.settings
        prefix, layout, keep_raw = self._prefix, self._layout, self._keep_raw
        keep_peaks = self._keep_peaks
        if own is not None:
            prefix = in_bucket(own.bucket, own.prefix)
            layout, keep_raw = own.layout, own.keep_raw
            # They are nothing without the audio, and still tell who spoke when.
            keep_peaks = keep_peaks and own.mode is not Mode.TRANSCRIBE
        return Planned(
            name=recording_name(call.record.opened),
            prefix=prefix,
            encoding=self._encoding,
            layout=layout,
            gaps=self._gaps,
            keep_raw=keep_raw,
            keep_peaks=keep_peaks,
        )

    async def dialogue_of(self, call: SpooledCall) -> bytes:
        """Return the file of a call's text messages.

        Raises:
            SpoolError: The disk refused.
        """
        return await trio.to_thread.run_sync(
            lambda: lines_of(call.read_journal()), limiter=self._threads
        )

    async def peaks_of(self, wav: Rendering) -> bytes:
        """Sum up a WAV file, of which all that was read before is summed up by now.

        Raises:
            SpoolError: It cannot be read to its end.
        """
        return await trio.to_thread.run_sync(wav.peaks, limiter=self._threads)

    def parts_upload(
        self, call: SpooledCall, key: str, confirmed: Callable[[], None]
    ) -> PartsUpload | None:
        """Make what uploads an object in parts, if the store takes any."""
        if self._in_parts is None:
            return None
        return PartsUpload(
            call,
            key,
            store=self._in_parts,
            spool=self.spool,
            part_bytes=max(self._part_bytes, self._in_parts.min_part_bytes),
            threads=self._threads,
            confirmed=confirmed,
        )


class CallUpload:
    """One call on its way to the store. To be used by one task at a time.

    Args:
        uploader: How it goes there.
        call: It.
        confirmed: Called whenever the store has confirmed something.
    """

    def __init__(
        self, uploader: Uploader, call: SpooledCall, confirmed: Callable[[], None]
    ) -> None:
        self._uploader = uploader
        self._store = uploader.store
        self._spool = uploader.spool
        self._call = call
        self._confirmed = confirmed
        self._uploads: dict[str, PartsUpload] = {}
        # Another process may have been at it, and been killed at any time.
        self._taken_over = call.record.planned is not None
        # When `ready` has to look again.
        self._look_bytes = 0
        self._gaps_seen = 0

    # While the call lives

    def ready(self, settled_bytes: int) -> bool:
        """Tell whether a part is full that can be sent of a live call.

        Args:
            settled_bytes: Audio from the start for which it is certain that no
                gap will be put before its end any more.
        """
        gaps = len(self._call.record.gaps)
        if settled_bytes < self._look_bytes and gaps == self._gaps_seen:
            return False
        # Nothing else makes a file longer than audio and gaps.
        self._gaps_seen = gaps
        missing = [
            upload.next_span.end - each.final_bytes
            for each in self._settled_objects(settled_bytes)
            if (upload := self._upload_of(each.key)) is not None
        ]
        least = min(missing, default=0)
        self._look_bytes = settled_bytes + max(1, least // _BYTES_PER_BYTE)
        return bool(missing) and least <= 0

    async def advance(self, settled_bytes: int) -> None:
        """Send one part of a live call, if one is full.

        Args:
            settled_bytes: As for `ready`.

        Raises:
            UploadError: The store did not do as asked; try again later.
            SpoolError: The local disk did not do as asked, or the call was given
                up.

        *Cancellation:* The part may be sent again.
        """
        self._look_bytes = 0
        for each in self._settled_objects(settled_bytes):
            upload = self._upload_of(each.key)
            if upload is not None and upload.next_span.end <= each.final_bytes:
                # The call may be given up by its own task at any time.
                self._call.hold()
                try:
                    if self._call.record.planned is None:
                        plan = self._uploader.plan(self._call)
                        await self._spool.commit(self._call, plan)
                    await upload.send_next(each.blob, each.about)
                finally:
                    self._call.let_go()
                return

    def _settled_objects(self, settled_bytes: int) -> list[_Object]:
        call, plan = self._call, self._uploader.plan(self._call)
        audio = _Settled(call, call.record.whole_frames(settled_bytes))
        samples = audio.size_bytes // call.record.frame_bytes
        # A gap beyond would be taken for one that follows at once.
        gaps = [gap for gap in call.record.gaps if gap.offset_samples <= samples]
        wavs = wav_files(call.record, audio, Timeline(gaps=gaps), plan)
        return _objects(call, plan, wavs, audio, is_whole=False)

    # Once it is over

    async def finish(self) -> bool:
        """Store all of a sealed call, and remove from the spool what is not needed.

        Whatever an earlier attempt has done is not done again.

        Returns:
            Whether the call has left the spool; otherwise it waits there for its
            transcripts, without its audio.

        Raises:
            UploadError: The store did not do as asked; try again later.
            SpoolError: The local disk did not do as asked, or the call is not
                sealed.

        *Cancellation:* The next attempt goes on from there.
        """
        call = self._call
        if call.record.closed is None:
            raise SpoolError(f"call {call.folder.name} is not sealed")
        if not call.record.done:
            if not call.record.delivered:
                await self._store_all()
                await self._uploader.herald.stored(call.record)
            # On disk before anything is deleted, or a crash could leave a call
            # without audio that looks as if it had never been stored.
            if not all(job.is_final for job in call.record.jobs.values()):
                if not call.record.delivered:
                    await self._spool.commit(call, Delivered())
                await self._spool.drop_audio(call)
                return False
            await self._spool.commit(call, Done())
        await self._spool.remove(call)
        return True

    async def _store_all(self) -> None:
        plan = self._uploader.plan(self._call)
        while True:
            if plan != self._call.record.planned:
                await self._spool.commit(self._call, plan)
            try:
                await self._store_objects(plan)
            except KeyExistsError as exc:
                name = _next_name(plan.name)
                if name is None:
                    raise UploadError(f"no free name for {plan.name}") from exc
                plan = replace(plan, name=name)
            else:
                return

    async def _store_objects(self, plan: Planned) -> None:
        call = self._call
        wavs = wav_files(call.record, call, call.record.timeline(), plan)
        if plan.keep_peaks:
            for wav in wavs.values():
                wav.sum_up()
        objects = _objects(call, plan, wavs, call, is_whole=True)
        # Uploads under a name that turned out to be taken.
        for key in call.record.uploads.keys() - {each.key for each in objects}:
            await self._drop_upload(key)
        stored = [await self._store_object(each) for each in objects]
        if plan.keep_peaks:
            for key, wav in wavs.items():
                draw = partial(self._uploader.peaks_of, wav)
                stored.append(await self._store_made(peaks_key(key), draw, [wav]))
        if call.record.texts:
            write = partial(self._uploader.dialogue_of, call)
            key = dialogue_key(plan)
            stored.append(await self._store_made(key, write, list(wavs.values())))
        await self._plan_transcripts(wavs)
        # Last, so that where it is, all the rest is.
        store, spool = self._store, self._spool
        files = list(wavs.values())
        noted = self._uploader.noted
        if await call_json.write(store, spool, call, plan, files, stored, noted=noted):
            self._confirmed()
        await self._drop_strays(objects)

    async def _plan_transcripts(self, wavs: Mapping[str, Rendering]) -> None:
        plan, call = self._uploader.plan_transcripts, self._call
        # Once the JSON tells of them they stay as they are.
        if plan is not None and not call.record.jobs:
            for fact in await plan(call, wavs):
                self._spool.append(call, fact)

    async def _store_object(self, each: _Object) -> Stored:
        known = self._call.record.stored.get(each.key)
        if known is not None:
            return known
        upload = self._upload_of(each.key)
        if upload is not None and each.blob.size_bytes > upload.first_bytes:
            return self._note(await upload.finish(each.blob, each.about))
        # One may have begun before the audio came to be shorter than it was.
        await self._drop_upload(each.key)
        token = self._call.record.opened.session_id
        return self._note(
            await self._store.put(each.key, each.blob, metadata=each.about, token=token)
        )

    async def _store_made(
        self,
        key: str,
        make: Callable[[], Awaitable[bytes]],
        wavs: Sequence[Rendering],
    ) -> Stored:
        """Store what is made of a call whose WAV files are stored, beside those.

        Args:
            key: Where it is to be.
            make: Makes it, if it is not there yet.
            wavs: Of which files it tells.
        """
        record = self._call.record
        known = record.stored.get(key)
        if known is not None:
            return known
        blob = BytesBlob(await make())
        about, token = metadata(record, wavs), record.opened.session_id
        try:
            stored = await self._store.put(key, blob, metadata=about, token=token)
        except KeyExistsError:
            # The WAV beside it is ours, and so it was; but another version may have
            # made it in another way, or the journal have had fewer lines.
            stored = await self._store.replace(key, blob, metadata=about, token=token)
        return self._note(stored)

    async def _drop_strays(self, objects: Sequence[_Object]) -> None:
        """Give up uploads that nobody knows of, as far as the store lets us."""
        for each in objects:
            upload = self._upload_of(each.key)
            if (
                upload is not None
                and (self._taken_over or upload.begun_in_vain)
                and each.blob.size_bytes > upload.first_bytes
            ):
                await _drop_strays_of(upload)

    def _note(self, stored: StoredObject) -> Stored:
        self._confirmed()
        fact = Stored(stored.key, stored.size, stored.sha256)
        self._spool.append(self._call, fact)
        return fact

    def _upload_of(self, key: str) -> PartsUpload | None:
        known = self._uploads.get(key)
        if known is not None:
            return known
        upload = self._uploader.parts_upload(self._call, key, self._confirmed)
        if upload is not None:
            self._uploads[key] = upload
        return upload

    async def _drop_upload(self, key: str) -> None:
        upload = self._upload_of(key)
        if upload is not None:
            await upload.drop()


async def _drop_strays_of(upload: PartsUpload) -> None:
    """Give up uploads to a key that nobody knows of, as far as the store lets us.

    A store that has just lost an answer, or met us in the middle of a restart, may
    refuse this once too. What is left then is up to the bucket's lifecycle.
    """
    for pause in (*_STRAY_PAUSES, None):
        try:
            await upload.drop_strays()
        except UploadError as exc:
            if pause is None or not exc.retryable:
                return
            await trio.sleep(pause)
        else:
            return


class _Settled:
    """The audio of a live call up to a point.

    Args:
        call: It.
        size_bytes: How much of it.
    """

    def __init__(self, call: SpooledCall, size_bytes: int) -> None:
        self._call = call
        self._size_bytes = size_bytes

    @property
    def size_bytes(self) -> int:
        """How much there is."""
        return self._size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        """Read audio. It blocks."""
        return self._call.read_at(offset, min(length, self._size_bytes - offset))


def _objects(
    call: SpooledCall,
    plan: Planned,
    wavs: Mapping[str, Rendering],
    audio: Blob,
    *,
    is_whole: bool,
) -> list[_Object]:
    """List the objects of a call that hold audio.

    Args:
        call: It.
        plan: What is to be stored of it.
        wavs: Its WAV files, by their keys.
        audio: Its audio.
        is_whole: Whether both are final.
    """
    about = metadata(call.record, list(wavs.values()))
    about_wav = {**about, "converted": "true", "original-file": f"{plan.name}.raw"}
    objects = []
    for key, wav in wavs.items():
        # The last byte may be one of padding, which moves as the file grows.
        final_bytes = wav.size_bytes if is_whole else wav.size_bytes - 1
        objects.append(_Object(key, wav, final_bytes, about_wav))
    if plan.keep_raw:
        objects.append(_Object(raw_key(plan), audio, audio.size_bytes, about))
    return objects


def _next_name(name: str) -> str | None:
    """Give a name the next number; ``None`` after the last."""
    match = _NUMBER.search(name)
    number = 2 if match is None else int(match[1]) + 1
    if number > _NAMES_LIMIT:
        return None
    return f"{_NUMBER.sub('', name)}_{number}"
