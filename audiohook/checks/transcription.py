"""Whether AssemblyAI takes what it will be asked for, as far as free requests tell."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx
import trio

from audiohook.errors import TranscriptError
from audiohook.hosts import is_private
from audiohook.transcription.assemblyai import AssemblyAI, make_client
from audiohook.transcription.base import TranscriptFault
from audiohook.transcription.parameters import (
    REGIONS,
    RETIRED_MODELS,
    Parameters,
    unknown_params,
)
from audiohook.verdict import Verdict, doubtful

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

    from pydantic import JsonValue

    from audiohook.checks.expectations import Expectations
    from audiohook.settings import Settings

SECONDS = 1.0

# AssemblyAI itself gives us ten.
_WEBHOOK_DEADLINE: Final = 10 * SECONDS
_WHO_ARE_YOU: Final = httpx.codes.UNAUTHORIZED
"""What our own service answers to a report that does not bring the secret."""


async def check_transcription(
    settings: Settings, _: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Tries the key, and looks at whatever jobs will be asked for with.

    No job is made, so nothing is billed.

    Yields:
        A verdict on each thing, as it is tried.
    """
    if settings.assemblyai_api_key is None:
        yield _without_key(settings)
        return
    yield await _try_key(settings, settings.assemblyai_api_key.get_secret_value())
    for verdict in _look_at_parameters(settings):
        yield verdict
    if settings.webhook_url is not None:
        yield await _try_webhook(settings.webhook_url.get_secret_value(), settings)


def _without_key(settings: Settings) -> Verdict:
    if settings.transcribe == "elsewhere":
        return Verdict(ok=True, what="transcription is left to others (TRANSCRIBE)")
    return Verdict(
        ok=True,
        what="transcription is off",
        mend="set ASSEMBLYAI_API_KEY if calls are to be transcribed",
    )


async def _try_key(settings: Settings, key: str) -> Verdict:
    """Asks for one entry of the account's list, which is free."""
    host = urlsplit(settings.assemblyai_base_url).netloc
    what = f"list a transcript at {host}{_region(settings.assemblyai_base_url)}"
    http = make_client(settings.assemblyai_base_url, key)
    try:
        await AssemblyAI(http).list_page(limit=1)
    except TranscriptError as error:
        return Verdict(ok=False, what=what, mend=_mend(error))
    finally:
        with trio.move_on_after(1 * SECONDS, shield=True):
            await http.aclose()
    if _is_in_clear(settings.assemblyai_base_url):
        return doubtful(
            what,
            "the key goes over the network in clear: use https:// in"
            " ASSEMBLYAI_BASE_URL",
        )
    return Verdict(ok=True, what=what)


def _mend(error: TranscriptError) -> str:
    if error.fault == TranscriptFault.BUSY:
        return (
            f"{error}; the key may be right: somebody uses up the account's 20,000"
            " requests in five minutes"
        )
    if error.fault == TranscriptFault.AWAY and error.retryable:
        return f"{error}; calls are stored meanwhile, and transcribed once it answers"
    return str(error)


def _region(base_url: str) -> str:
    region = REGIONS.get(urlsplit(base_url).hostname or "")
    return "" if region is None else f", whose data stay in the {region}"


def _is_in_clear(base_url: str) -> bool:
    parts = urlsplit(base_url)
    return parts.scheme != "https" and not is_private(parts.hostname or "")


def _look_at_parameters(settings: Settings) -> list[Verdict]:
    parameters = Parameters.from_settings(settings)
    body = parameters.body("https://example.com/a.wav", channels=2)
    verdicts = [_look_at_names(body)]
    models = body.get("speech_models")
    if "speech_model" in body:
        verdicts.append(
            Verdict(
                ok=False,
                what="ask for a model",
                mend="speech_model is refused since 2026: name models in a list,"
                ' {"speech_models": ["universal-3-5-pro", "universal-2"]}',
            )
        )
    elif isinstance(models, list) and models:
        verdicts.append(_look_at_models([str(each) for each in models]))
    else:
        verdicts.append(
            Verdict(
                ok=True,
                what="ask for whatever model AssemblyAI chooses",
                mend="its choice changes, and the text with it: name some in"
                " speech_models of ASSEMBLYAI_PARAMS",
            )
        )
    return verdicts


def _look_at_names(body: Mapping[str, JsonValue]) -> Verdict:
    unknown = unknown_params(body)
    if not unknown:
        return Verdict(ok=True, what="parameters of jobs have names that are known")
    return doubtful(
        "parameters of jobs",
        f"not known here, so AssemblyAI may refuse them: {', '.join(unknown)};"
        " look for a slip of the pen in ASSEMBLYAI_PARAMS",
    )


def _look_at_models(models: list[str]) -> Verdict:
    what = f"ask for the models {', '.join(models)}"
    retired = [name for name in models if name in RETIRED_MODELS]
    if retired:
        return Verdict(
            ok=False,
            what=what,
            mend=f"AssemblyAI has retired {', '.join(retired)}: take that out of"
            " speech_models in ASSEMBLYAI_PARAMS",
        )
    return Verdict(
        ok=True,
        what=what,
        mend="no free request tells whether AssemblyAI still has them; if not, calls"
        " wait, and the log says transcription_needs_mending",
    )


async def _try_webhook(url: str, settings: Settings) -> Verdict:
    """Sends what is no report, from here, to where reports will be sent."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    what = f"reach {parts.scheme}://{parts.netloc}{parts.path} for webhooks"
    service_is_near = is_private(urlsplit(settings.assemblyai_base_url).hostname or "")
    if is_private(host) and not service_is_near:
        return Verdict(
            ok=False,
            what=what,
            mend=f"{host} is not to be reached from elsewhere: WEBHOOK_URL has to be"
            " a public address that leads to this service",
        )
    try:
        with trio.fail_after(_WEBHOOK_DEADLINE):
            status = await _post_nothing(url)
    except (httpx.HTTPError, OSError, trio.TooSlowError) as error:
        if _is_distrust(error):
            return Verdict(
                ok=False,
                what=what,
                mend=f"the certificate of {host} is not trusted, so AssemblyAI does not"
                " report there: use one of a public authority",
            )
        why = "no answer" if isinstance(error, trio.TooSlowError) else _why(error)
        return Verdict(
            ok=True,
            what=what,
            mend=f"not from here ({why}). That is as it should be if the service"
            " does not run yet, or if only outsiders get through; transcripts come"
            " without webhooks as well, some minutes later",
        )
    if status == _WHO_ARE_YOU:
        return Verdict(ok=True, what=what)
    return Verdict(
        ok=False,
        what=what,
        mend=f"it answers {status}, and this service would have said 401: WEBHOOK_URL"
        " must lead to the port that calls come to, its path unchanged",
    )


async def _post_nothing(url: str) -> int:
    async with httpx.AsyncClient(timeout=_WEBHOOK_DEADLINE, trust_env=False) as http:
        return (await http.post(url, content=b"")).status_code


def _is_distrust(error: Exception) -> bool:
    """Tell whether it is the certificate that keeps us from an answer."""
    return any(
        isinstance(each, ssl.SSLCertVerificationError) for each in _causes(error)
    )


def _why(error: Exception) -> str:
    """Say in a few words why there was no answer."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return "there is no such name"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return type(error).__name__


def _causes(error: Exception) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
