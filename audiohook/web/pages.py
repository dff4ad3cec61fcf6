"""How a page is made: templates, files beside them, and the headers of each.

Whatever is in a page comes from this port, or is audio in the configured store.
There is no script and no style in a page itself, so one that got into it from a
call would not run.
"""

from __future__ import annotations

import hashlib
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import PlainTextResponse, Response

from audiohook import __version__
from audiohook.web.text import FILTERS, name, number

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.requests import Request

_STATIC: Final = Path(__file__).parent / "static"
_HEADERS: Final = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Not `no-referrer`: a form would then have no origin to be known by.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_FOR_EVER: Final = "public, max-age=31536000, immutable"


class Pages:
    """Makes pages.

    Args:
        show_numbers: Whether numbers of callers are shown.

    Attributes:
        show_numbers: As given.
    """

    def __init__(self, *, show_numbers: bool) -> None:
        self.show_numbers = show_numbers
        self._files = {path.name: path.read_bytes() for path in _STATIC.iterdir()}
        digest = hashlib.sha256()
        for each in sorted(self._files):
            digest.update(each.encode() + self._files[each])
        self._version = digest.hexdigest()[:16]
        self._templates = Environment(
            loader=PackageLoader("audiohook.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            # They come with the package.
            auto_reload=False,
        )
        self._templates.filters.update(FILTERS)
        self._templates.filters["number"] = self.number
        self._templates.filters["name"] = self.name
        self._templates.globals.update(static=self._address, version=__version__)

    def number(self, text: str) -> str:
        """Give a number as it may be shown here; also a filter."""
        return number(text, show=self.show_numbers)

    def name(self, text: str) -> str:
        """Give a name as it may be shown here; also a filter."""
        return name(text, show=self.show_numbers)

    def render(
        self,
        template: str,
        *,
        status: int = 200,
        media: Collection[str] = (),
        headers: Mapping[str, str] | None = None,
        **context: object,
    ) -> Response:
        """Make a page.

        Args:
            template: Name of its template.
            status: Of the answer.
            media: Addresses of audio in the page that are not on this port.
            headers: Of the answer, besides those that all have.
            **context: For the template.
        """
        body = self._templates.get_template(template).render(context)
        return Response(
            body,
            status,
            headers={
                **_HEADERS,
                "content-security-policy": _policy(media),
                **(headers or {}),
            },
            media_type="text/html",
        )

    def part(self, template: str, block: str, **context: object) -> Markup:
        """Make a part of a page, to be put into one that somebody has.

        Args:
            template: Name of a template.
            block: Name of a block of it.
            **context: For the template.
        """
        found = self._templates.get_template(template)
        # Made by a template, which has escaped what is in it.
        return Markup("".join(found.blocks[block](found.new_context(context))))  # noqa: S704

    async def file(self, request: Request) -> Response:
        """Send a style, a script or a picture."""
        file = request.path_params["file"]
        data = self._files.get(file)
        if data is None:
            return PlainTextResponse("Not Found", 404)
        is_current = request.path_params["version"] == self._version
        headers = {"cache-control": _FOR_EVER} if is_current else None
        kind = mimetypes.types_map[Path(file).suffix]
        return Response(data, headers=headers, media_type=kind)

    def _address(self, file: str) -> str:
        if file not in self._files:
            raise LookupError(file)
        return f"/static/{self._version}/{file}"


def _policy(media: Collection[str]) -> str:
    """Write what a page may load, and where it may be put. Source: CSP level 3."""
    origins = sorted({_origin(each) for each in media})
    ours = " ".join(["'self'", *origins])
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            f"media-src {ours}",
            f"connect-src {ours}",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
