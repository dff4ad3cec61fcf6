"""The service's endpoints, from a request to its answer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from audiohook.recording.wav import Encoding, header
from audiohook.simulator.assemblyai import answers
from audiohook.simulator.assemblyai.account import (
    DEFAULT_PAGE,
    MAX_PAGE,
    Refusal,
    Status,
)
from audiohook.simulator.assemblyai.audio import Clip, TooLongError
from audiohook.simulator.assemblyai.faults import Endpoint
from audiohook.simulator.assemblyai.http import Answer, json_answer
from audiohook.simulator.assemblyai.parameters import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from audiohook.simulator.assemblyai.account import Account, Job, Limits
    from audiohook.simulator.assemblyai.audio import Uploads
    from audiohook.simulator.assemblyai.faults import Faults
    from audiohook.simulator.assemblyai.http import Connection, Request
    from audiohook.simulator.assemblyai.parameters import Policy

SECONDS = 1.0
HOURS = 3600 * SECONDS
KIB = 1024

_MAX_BODY_BYTES = 1024 * KIB
_REDACTED_LIFE = 24 * HOURS
_REDACTED_PATH = "/redacted-audio/"
_SILENCE = header(Encoding.ULAW, 1, 8000) + 8000 * b"\xff"

_TRANSCRIPT = "/v2/transcript"
_PARTS = (
    "sentences",
    "paragraphs",
    "srt",
    "vtt",
    "word-search",
    "redacted-audio",
)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request leads.

    Attributes:
        endpoint: What it asks for.
        job_id: The job it is about, if it is about one.
        part: What of it is to be exported.
    """

    endpoint: Endpoint
    job_id: str = ""
    part: str = ""


def find_route(request: Request) -> Route | None:
    """Finds out where a request leads; None if nowhere."""
    method, path = request.method, request.path.rstrip("/")
    if path == "/v2/upload" and method == "POST":
        return Route(Endpoint.UPLOAD)
    if path == _TRANSCRIPT:
        endpoints = {"POST": Endpoint.SUBMIT, "GET": Endpoint.LIST}
        return Route(endpoints[method]) if method in endpoints else None
    if not path.startswith(f"{_TRANSCRIPT}/"):
        return None
    job_id, _, part = path[len(_TRANSCRIPT) + 1 :].partition("/")
    if not part:
        endpoints = {"GET": Endpoint.GET, "DELETE": Endpoint.DELETE}
        return Route(endpoints[method], job_id) if method in endpoints else None
    if part in _PARTS and method == "GET":
        return Route(Endpoint.EXPORT, job_id, part)
    return None


class Api:
    """What the service answers when nothing goes wrong.

    Args:
        accounts: By key.
        uploads: Files sent to it.
        limits: What it bears.
        policy: What it accepts.
        faults: The state of balance, keys and models.
        submitted: Called when a job was made.

    Attributes:
        base_url: Where it is.
        calendar: What turns its clock into dates.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account],
        uploads: Uploads,
        *,
        limits: Limits,
        policy: Policy,
        faults: Faults,
        submitted: Callable[[], None],
    ) -> None:
        self._accounts = accounts
        self._uploads = uploads
        self._limits = limits
        self._policy = policy
        self._faults = faults
        self._submitted = submitted
        self.base_url = ""
        self.calendar: answers.Calendar | None = None

    async def answer(
        self, connection: Connection, request: Request, route: Route
    ) -> Answer:
        """Does what a request asks for.

        Args:
            connection: Where its body can be read.
            request: The request.
            route: Where it leads.

        Raises:
            Refusal: It cannot be done; the client is to be told.
            PeerGone: The client did not send it all.
        """
        key = request.headers.get("authorization", "")
        account = self._accounts.get(key)
        if account is None or self._faults.keys_refused:
            raise Refusal(401, "Authentication error, API token missing/invalid")
        account.admit(trio.current_time())
        match route.endpoint:
            case Endpoint.SUBMIT:
                body = await connection.read_all(_MAX_BODY_BYTES)
                return self._submit(key, account, body)
            case Endpoint.UPLOAD:
                return await self._upload(key, connection)
            case Endpoint.LIST:
                return self._list(account, request.query)
            case Endpoint.GET:
                return self._transcript(account, account.get(route.job_id))
            case Endpoint.DELETE:
                return self._delete(account, route.job_id)
            case Endpoint.EXPORT:
                return self._export(account.get(route.job_id), route.part, request)

    def public_file(self, path: str) -> Answer | None:
        """Gives the redacted copy of audio; it needs no key, as a signed URL."""
        job_id = path.removeprefix(_REDACTED_PATH).removesuffix(".wav")
        for account in self._accounts.values():
            if path.startswith(_REDACTED_PATH) and job_id in account.jobs:
                return Answer(200, _SILENCE, "audio/wav")
        return None

    def redacted_audio(self, job: Job) -> dict[str, Any]:
        """Tells where the redacted copy of a job's audio is.

        The copy is a second of silence, in which nothing personal is left.
        """
        return {
            "status": "redacted_audio_ready",
            "redacted_audio_url": f"{self.base_url}{_REDACTED_PATH}{job.id}.wav",
        }

    def _submit(self, key: str, account: Account, body: bytes) -> Answer:
        if self._faults.balance_negative:
            raise Refusal(
                400,
                "Your current account balance is negative. Please top up to continue"
                " using the API.",
            )
        try:
            parameters = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "Invalid JSON") from error
        choice = choose(parameters, self._policy, self._faults.retired)
        self._uploads.check(parameters["audio_url"], key)
        job = account.submit(
            parameters,
            model=choice.model,
            language=choice.language,
            now=trio.current_time(),
        )
        self._submitted()
        return self._transcript(account, job)

    async def _upload(self, key: str, connection: Connection) -> Answer:
        with Clip(self._limits.upload_bytes) as clip:
            try:
                while data := await connection.read_some():
                    await clip.append(data)
            except TooLongError as error:
                raise Refusal(413, "Request Entity Too Large") from error
            if not clip.size_bytes:
                raise Refusal(400, "Upload failed, please try again.")
            url = await self._uploads.keep(clip, key, trio.current_time())
        return json_answer({"upload_url": url})

    def _list(self, account: Account, query: Mapping[str, str]) -> Answer:
        limit = _page_limit(query)
        status = query.get("status")
        if status is not None and status not in tuple(Status):
            raise Refusal(400, f"status must be one of {', '.join(Status)}")
        day = query.get("created_on")
        if day is not None and not _DAY.fullmatch(day):
            raise Refusal(400, "created_on must be a date such as 2026-01-31")
        calendar = self._need_calendar()
        throttled_only = query.get("throttled_only") == "true"
        now = trio.current_time()

        def matches(job: Job) -> bool:
            if throttled_only:
                return account.throttled(job, now)
            return (status is None or job.status == status) and (
                day is None or calendar.date(job.created) == day
            )

        page = account.page(
            matches,
            limit=limit,
            before_id=query.get("before_id"),
            after_id=query.get("after_id"),
        )
        return json_answer(
            answers.list_page(page, self.base_url, query, limit, calendar)
        )

    def _transcript(self, account: Account, job: Job) -> Answer:
        throttled = account.throttled(job, trio.current_time())
        return json_answer(answers.transcript(job, self._policy, throttled=throttled))

    def _delete(self, account: Account, job_id: str) -> Answer:
        job = account.delete(job_id)
        self._uploads.remove(job.audio_url)
        return self._transcript(account, job)

    def _export(self, job: Job, part: str, request: Request) -> Answer:
        if part == "redacted-audio":
            return self._redacted_audio(job)
        if job.status is not Status.COMPLETED:
            raise Refusal(
                400,
                f"This transcript has a status of '{job.status}'. Transcripts must"
                " have a status of 'completed' before they can be exported.",
            )
        voices = answers.Voices(job)
        match part:
            case "sentences":
                return json_answer(voices.sentences())
            case "paragraphs":
                return json_answer(voices.paragraphs())
            case "word-search":
                words = request.query.get("words", "").split(",")
                if not any(words):
                    raise Refusal(400, "words must name at least one word")
                return json_answer(voices.search(words))
            case _:
                chars = _caption_chars(request.query)
                text = voices.captions(part, chars)
                return Answer(200, text.encode(), "text/plain; charset=utf-8")

    def _redacted_audio(self, job: Job) -> Answer:
        if not job.parameters.get("redact_pii_audio"):
            raise Refusal(400, "redact_pii_audio was not set for this transcript")
        if not job.final:
            return json_answer({"status": "processing"}, 202)
        gone = trio.current_time() - (job.ended or 0.0) > _REDACTED_LIFE
        if job.status is Status.ERROR or job.deleted or gone:
            raise Refusal(400, "The redacted audio is no longer available")
        return json_answer(self.redacted_audio(job))

    def _need_calendar(self) -> answers.Calendar:
        if self.calendar is None:
            self.calendar = answers.Calendar.starting(trio.current_time())
        return self.calendar


def _page_limit(query: Mapping[str, str]) -> int:
    """Reads how many jobs a page is to hold.

    Raises:
        Refusal: It is no number, or out of bounds.
    """
    text = query.get("limit", str(DEFAULT_PAGE))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_PAGE):
        raise Refusal(400, f"limit must be an Integer between 1 and {MAX_PAGE}")
    return int(text)


def _caption_chars(query: Mapping[str, str]) -> int:
    """Reads how long a caption may be.

    Raises:
        Refusal: It is no number, or 0.
    """
    text = query.get("chars_per_caption", str(answers.CAPTION_CHARS))
    if not (text.isascii() and text.isdigit() and int(text)):
        raise Refusal(400, "chars_per_caption must be an Integer above 0")
    return int(text)
