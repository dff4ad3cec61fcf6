"""What a service says as it starts of things that work, and had better be mended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import SecretStr

from audiohook.checks.settings import exposed
from audiohook.setting_sources import name_of, read_env_file
from audiohook.settings import setting_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from audiohook.settings import Settings


def warn_at_start(
    settings: Settings, env_file: Path, log: FilteringBoundLogger
) -> None:
    """Writes a line on each of them, since nobody runs ``check`` at every start.

    Args:
        settings: Of the service.
        env_file: Where some of them come from; it may be absent.
        log: Where the lines go.
    """
    if os.geteuid() == 0:
        log.warning(
            "runs_as_root",
            mend="run it as another user, which `audiohook install-service` sees to;"
            " what root has written into RECORDINGS_DIR that user cannot touch, so"
            " change its owner then",
        )
    for path in _files_with_secrets(settings, env_file):
        if fault := exposed(path):
            log.warning("secrets_exposed", error=fault, mend=f"chmod 600 {path}")


def _files_with_secrets(settings: Settings, env_file: Path) -> Iterator[Path]:
    in_file = read_env_file(env_file, setting_names()).values
    secrets = {
        name_of(attribute, info)
        for attribute, info in type(settings).model_fields.items()
        if isinstance(getattr(settings, attribute), SecretStr)
    }
    if secrets & in_file.keys():
        yield env_file
    for path in (settings.api_keys_file, settings.api_tokens_file, settings.tls_key):
        if path is not None:
            yield path
