from __future__ import annotations

import re
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from audiohook.checks import transcription
from audiohook.simulator.assemblyai import Endpoint, Fault, StandIn
from audiohook.transcription.assemblyai import make_client
from audiohook.transcription.parameters import unknown_params
from tests.assemblyai_spec import property_names
from tests.checks.tools import checked, load
from tests.house import house

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

KEY = "stand-in-key"
MAKE_CLIENT = "audiohook.checks.transcription.make_client"


async def lines(
    folder: Path, standin: StandIn, **flags: object
) -> tuple[int, list[str]]:
    """Checks against a stand-in; returns what is said of transcription."""
    async with trio.open_nursery() as nursery:
        url = await nursery.start(standin.serve)
        flags = {
            "recordings_dir": folder,
            "assemblyai_api_key": KEY,
            "assemblyai_base_url": url,
            **flags,
        }
        code, out = await checked(**flags)
        nursery.cancel_scope.cancel()
    return code, out.splitlines()[1:]


async def test_account_that_works_is_asked_once_and_for_nothing(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    code, said = await lines(tmp_path, standin)
    assert code == 0
    assert said[0].startswith("✓ list a transcript at 127.0.0.1:")
    assert said[1] == "✓ parameters of jobs have names that are known"
    assert said[2] == "✓ ask for the models universal-3-5-pro, universal-2"
    assert "no free request tells" in said[3]
    statistics = standin.statistics()
    assert statistics.requests == {Endpoint.LIST: 1}
    assert statistics.submitted == 0
    assert KEY not in "\n".join(said)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault.UNAUTHORIZED, "correct ASSEMBLYAI_API_KEY"),
        (Fault.RATE, "asks for fewer requests (429)"),
        (Fault.ERROR_503, "fails to list (503)"),
        (Fault.EMPTY_503, "fails to list (503)"),
        (Fault.RESET, "broke"),
        (Fault.GARBAGE, "no list of transcripts"),
    ],
)
async def test_fault_is_told_with_its_mend(
    tmp_path: Path, fault: Fault, words: str
) -> None:
    standin = StandIn(keys=(KEY,))
    standin.faults.script(Endpoint.LIST, fault)
    code, said = await lines(tmp_path, standin)
    assert code == 1
    assert said[0].startswith("✗ list a transcript at ")
    assert words in said[1]
    # All the rest is tried nevertheless.
    assert any("speech" in each or "models" in each for each in said[2:])


async def test_key_of_another_account_is_told(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    code, said = await lines(tmp_path, standin, assemblyai_api_key="another-key")
    assert code == 1
    assert "does not accept the key (401): correct ASSEMBLYAI_API_KEY" in said[1]
    assert "another-key" not in "\n".join(said)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9", "cannot connect to 127.0.0.1:9"),
        ("http://no-such-host.invalid", "cannot connect to no-such-host.invalid"),
    ],
)
async def test_wrong_host_is_told(tmp_path: Path, url: str, words: str) -> None:
    code, out = await checked(
        recordings_dir=tmp_path, assemblyai_api_key=KEY, assemblyai_base_url=url
    )
    assert code == 1
    assert words in out
    assert "is ASSEMBLYAI_BASE_URL right?" in out


async def test_server_without_tls_is_told(tmp_path: Path) -> None:
    standin = StandIn(keys=(KEY,))
    async with trio.open_nursery() as nursery:
        url = await nursery.start(standin.serve)
        code, out = await checked(
            recordings_dir=tmp_path,
            assemblyai_api_key=KEY,
            assemblyai_base_url=url.replace("http:", "https:"),
        )
        nursery.cancel_scope.cancel()
    assert code == 1
    assert "✗ list a transcript at 127.0.0.1:" in out
    assert "ASSEMBLYAI_BASE_URL" in out


async def distrusted(*, task_status: trio.TaskStatus[int]) -> None:
    """Serves with a certificate of an authority of its own; told the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def shake_hands(stream: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, context, server_side=True).do_handshake()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_tcp, shake_hands, 0, host="127.0.0.1")
        )
        task_status.started(listener.socket.getsockname()[1])


async def test_certificate_that_nobody_trusts_is_told(
    tmp_path: Path,
) -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(distrusted)
        code, out = await checked(
            recordings_dir=tmp_path,
            assemblyai_api_key=KEY,
            assemblyai_base_url=f"https://127.0.0.1:{port}",
        )
        nursery.cancel_scope.cancel()
    assert code == 1
    assert f"the certificate of 127.0.0.1:{port} is not trusted" in out


@pytest.mark.parametrize(
    ("url", "end"),
    [
        ("https://api.assemblyai.com", ", whose data stay in the US"),
        ("https://api.eu.assemblyai.com", ", whose data stay in the EU"),
        ("https://transcribe.example.com", "transcribe.example.com"),
    ],
)
async def test_region_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, end: str
) -> None:
    # The host is not asked: another answers in its place.
    standin = StandIn(keys=(KEY,))
    async with trio.open_nursery() as nursery:
        near = await nursery.start(standin.serve)
        monkeypatch.setattr(MAKE_CLIENT, lambda _, key: make_client(near, key))
        code, out = await checked(
            recordings_dir=tmp_path, assemblyai_api_key=KEY, assemblyai_base_url=url
        )
        nursery.cancel_scope.cancel()
    assert code == 0
    assert out.splitlines()[1].endswith(end)


async def test_key_in_clear_over_the_network_is_advised_against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin = StandIn(keys=(KEY,))
    async with trio.open_nursery() as nursery:
        near = await nursery.start(standin.serve)
        monkeypatch.setattr(MAKE_CLIENT, lambda _, key: make_client(near, key))
        code, out = await checked(
            recordings_dir=tmp_path,
            assemblyai_api_key=KEY,
            assemblyai_base_url="http://transcribe.example.com",
        )
        nursery.cancel_scope.cancel()
    assert code == 0
    assert "in clear: use https:// in ASSEMBLYAI_BASE_URL" in out


@pytest.mark.parametrize(
    ("params", "code", "words"),
    [
        ({"speker_labels": True}, 0, "not known here, .*: speker_labels;"),
        ({"speech_models": ["universal-3-pro", "universal-2"]}, 1, "has retired univ"),
        ({"speech_models": None}, 0, "whatever model AssemblyAI chooses"),
        ({"speech_model": "best"}, 1, "speech_model is refused since 2026"),
    ],
)
async def test_parameters_are_looked_at(
    tmp_path: Path, params: dict[str, Any], code: int, words: str
) -> None:
    standin = StandIn(keys=(KEY,))
    found, said = await lines(tmp_path, standin, assemblyai_params=params)
    assert found == code
    assert re.search(words, "\n".join(said))


def test_parameters_of_the_document_are_known() -> None:
    # All but the one that is refused.
    names = property_names("TranscriptParams") - {"speech_model"}
    assert unknown_params(names) == []


async def test_without_a_key_it_says_that_transcription_is_off(tmp_path: Path) -> None:
    code, out = await checked(recordings_dir=tmp_path)
    assert code == 0
    assert "✓ transcription is off\n  → set ASSEMBLYAI_API_KEY" in out
    code, out = await checked(recordings_dir=tmp_path, transcribe="elsewhere")
    assert (code, "left to others" in out) == (0, True)


# Webhooks


async def test_webhook_that_reaches_our_service_is_right(tmp_path: Path) -> None:
    flags: dict[str, Any] = {
        "assemblyai_api_key": KEY,
        "webhook_url": "https://example.com/hook",
    }
    async with house(tmp_path, **flags) as it:
        url = f"http://127.0.0.1:{it.port}/hook?tenant=1"
        code, said = await lines(tmp_path, StandIn(keys=(KEY,)), webhook_url=url)
    assert code == 0
    assert said[-1] == f"✓ reach http://127.0.0.1:{it.port}/hook for webhooks"


async def test_webhook_that_reaches_somebody_else_is_told(tmp_path: Path) -> None:
    other = StandIn(keys=(KEY,))
    async with trio.open_nursery() as nursery:
        url = await nursery.start(other.serve)
        code, said = await lines(
            tmp_path, StandIn(keys=(KEY,)), webhook_url=f"{url}/hook"
        )
        nursery.cancel_scope.cancel()
    assert code == 1
    assert "it answers 404, and this service would have said 401" in said[-1]


async def test_webhook_without_a_service_is_advice(tmp_path: Path) -> None:
    code, said = await lines(
        tmp_path, StandIn(keys=(KEY,)), webhook_url="http://127.0.0.1:9/hook"
    )
    assert code == 0
    assert "not from here (" in said[-1]


async def test_webhook_with_a_certificate_that_nobody_trusts_is_told(
    tmp_path: Path,
) -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(distrusted)
        code, said = await lines(
            tmp_path,
            StandIn(keys=(KEY,)),
            webhook_url=f"https://127.0.0.1:{port}/hook",
        )
        nursery.cancel_scope.cancel()
    assert code == 1
    assert "the certificate of 127.0.0.1 is not trusted" in said[-1]


def webhook_trial(url: str) -> Callable[[], Awaitable[Any]]:
    return partial(transcription._try_webhook, url, load(assemblyai_api_key=KEY))


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "audiohook", "x.internal"])
async def test_webhook_that_nobody_outside_can_reach_is_told(host: str) -> None:
    verdict = await webhook_trial(f"https://{host}/hook")()
    assert not verdict.ok
    assert f"{host} is not to be reached from elsewhere" in verdict.mend
