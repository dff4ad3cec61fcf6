"""Whether Genesys will be let in, and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from audiohook.checks.settings import exposed
from audiohook.errors import ConfigError
from audiohook.key_ring import secret_keys
from audiohook.keys import configured_keys
from audiohook.reload import configured_tokens
from audiohook.verdict import bad, doubtful, good

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from audiohook.checks.expectations import Expectations
    from audiohook.keys import KeyRecord
    from audiohook.settings import Settings
    from audiohook.verdict import Verdict


async def check_keys(
    settings: Settings, _: Expectations
) -> AsyncGenerator[Verdict, None]:
    """Reads API keys, client secrets and tokens, and looks at who else can.

    Yields:
        A verdict on each file, and on the keys.
    """
    for verdict in await trio.to_thread.run_sync(lambda: list(_look(settings))):
        yield verdict


def _look(settings: Settings) -> Iterator[Verdict]:
    keys: dict[str, KeyRecord] = {}
    whole = True
    for read in (configured_keys, secret_keys):
        try:
            found = read(settings)
        except ConfigError as error:
            whole = False
            yield _fault(error)
            continue
        if read is secret_keys and settings.api_keys_secret is not None:
            yield good(f"read the API keys of API_KEYS_SECRET: {len(found)}")
        keys |= found
    if keys or whole:
        yield _judge([bool(record.secrets) for record in keys.values()])
    if settings.api_tokens_file is not None:
        try:
            tokens = configured_tokens(settings) or ()
            yield good(f"read the tokens of the API: {len(tokens)}")
        except ConfigError as error:
            yield _fault(error)
    for name in ("api_keys_file", "api_tokens_file"):
        path = getattr(settings, name)
        if path is not None and (fault := exposed(path)):
            yield doubtful(
                f"keep {name.upper()} to its owner", f"{fault}: chmod 600 {path}"
            )


def _fault(error: ConfigError) -> Verdict:
    name, _, fault = str(error).partition(": ")
    return bad(name, fault)


def _judge(signed: list[bool]) -> Verdict:
    """Judge the keys, of which only is said whether they have a secret."""
    if not signed:
        return good(
            "no API key is set: a random one is made at each start",
            "set API_KEY and CLIENT_SECRET before Genesys is to connect",
        )
    what = f"API keys: {len(signed)}, of which {sum(signed)} with a client secret"
    if all(signed):
        return good(what)
    return doubtful(
        what,
        "without a secret, whoever learns the key can connect: set the same client"
        " secret here and in the integration",
    )
