from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.requests import Request

from audiohook.web.gate import COOKIE, is_own, own_path
from tests.web.visiting import PASSWORD, SAME_ORIGIN, page_of

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "0" * 64


async def test_loopback_needs_no_password(tmp_path: Path) -> None:
    async with page_of(tmp_path) as page:
        answer = await page.get("/")
        assert answer.status_code == 200
        assert "Log out" not in answer.text


async def test_pages_have_strict_headers(tmp_path: Path) -> None:
    async with page_of(tmp_path, admin_password=PASSWORD) as page:
        await page.log_in()
        for path in ("/", "/calls/2026-nothing", "/login?next=/"):
            headers = (await page.get(path)).headers
            if "location" in headers:
                continue
            policy = headers["content-security-policy"].split("; ")
            assert policy == [
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "img-src 'self'",
                "media-src 'self'",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'self'",
                "frame-ancestors 'none'",
            ]
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "same-origin"
            assert headers["cache-control"] == "no-store"
            assert headers["x-content-type-options"] == "nosniff"


async def test_password_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    async with page_of(tmp_path, admin_password=PASSWORD) as page:
        answer = await page.get("/calls/2026-x?a=%C3%A4")
        assert answer.status_code == 303
        assert (
            answer.headers["location"]
            == "/login?next=%2Fcalls%2F2026-x%3Fa%3D%25C3%25A4"
        )
        login = await page.get(answer.headers["location"])
        assert 'name="next" value="/calls/2026-x?a=%C3%A4"' in login.text

        refused = await page.log_in("not the password")
        assert refused.status_code == 403
        assert "That is not the password" in refused.text
        assert "set-cookie" not in refused.headers
        assert (await page.get("/")).status_code == 303

        accepted = await page.log_in(goal="/calls/2026-x")
        assert accepted.status_code == 303
        assert accepted.headers["location"] == "/calls/2026-x"
        cookie = accepted.headers["set-cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        assert "; HttpOnly; Max-Age=28800; Path=/; SameSite=strict" in cookie
        assert "Secure" not in cookie
        assert "Log out" in await page.text("/")
        assert (await page.get("/login")).headers["location"] == "/"


async def test_cookie_is_for_tls_only_where_there_is_tls(tmp_path: Path) -> None:
    async with page_of(tmp_path, admin_password=PASSWORD) as page:
        page.client.headers["x-forwarded-proto"] = "https"
        accepted = await page.log_in()
        assert accepted.headers["set-cookie"].endswith("; Secure")


async def test_logging_out_ends_the_session_and_not_only_the_cookie(
    tmp_path: Path,
) -> None:
    async with page_of(tmp_path, admin_password=PASSWORD) as page:
        await page.log_in()
        kept = page.client.cookies[COOKIE]
        token = await page.token("/")
        refused = await page.post("/logout", {"token": TOKEN})
        assert refused.status_code == 403
        await page.text("/")
        assert (await page.post("/logout", {"token": token})).status_code == 303
        assert COOKIE not in page.client.cookies
        page.client.cookies[COOKIE] = kept
        assert (await page.get("/")).status_code == 303


async def test_tries_are_limited(tmp_path: Path) -> None:
    async with page_of(tmp_path, admin_password=PASSWORD) as page:
        seen = [(await page.log_in("wrong")).status_code for _ in range(6)]
        assert seen == [403] * 5 + [429]


@pytest.mark.parametrize("path", ["/health", "/ready", "/stats", "/metrics"])
async def test_machines_need_no_password(tmp_path: Path, path: str) -> None:
    async with page_of(tmp_path, admin_password=PASSWORD) as page:
        assert (await page.get(path)).status_code == 200
    async with page_of(tmp_path / "x", admin_host="0.0.0.0") as page:
        assert (await page.get(path)).status_code == 200


async def test_page_that_others_can_reach_is_closed_without_a_password(
    tmp_path: Path,
) -> None:
    async with page_of(tmp_path, admin_host="0.0.0.0") as page:
        for path in ("/", "/login", "/calls/2026-x"):
            answer = await page.get(path)
            assert answer.status_code == 403
            assert "ADMIN_PASSWORD" in answer.text
        assert (await page.post("/login", {"password": ""})).status_code == 403
    async with page_of(
        tmp_path / "x", admin_host="0.0.0.0", admin_password=PASSWORD
    ) as page:
        await page.log_in()
        await page.text("/")


async def test_login_from_another_origin_is_refused(tmp_path: Path) -> None:
    async with page_of(tmp_path, admin_password=PASSWORD) as page:
        fields = {"token": await page.token(), "password": PASSWORD}
        answer = await page.post("/login", fields, {"origin": "https://evil.example"})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    async with page_of(tmp_path) as page:
        for path in ("/calls/2026-x", "/calls/%2e%2e", "/static/x/none.css"):
            assert (await page.get(path)).status_code == 404


async def test_files_beside_pages_are_kept_by_browsers(tmp_path: Path) -> None:
    async with page_of(tmp_path, admin_password=PASSWORD) as page:
        text = await page.text("/login")
        address = text.partition('stylesheet" href="')[2].partition('"')[0]
        answer = await page.get(address)
        assert answer.headers["content-type"].startswith("text/css")
        assert "immutable" in answer.headers["cache-control"]
        old = await page.get("/static/0123456789abcdef/page.css")
        assert old.text == answer.text
        assert old.headers["cache-control"] == "no-store"


def request(headers: dict[str, str]) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw})


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        (SAME_ORIGIN, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "none"}, False),
        (
            {"sec-fetch-site": "cross-site", "origin": "http://a:1", "host": "a:1"},
            False,
        ),
        ({"origin": "http://a:1", "host": "a:1"}, True),
        ({"origin": "http://A:1", "host": "a:1"}, True),
        ({"origin": "http://a:2", "host": "a:1"}, False),
        ({"origin": "http://a.evil", "host": "a"}, False),
        ({"origin": "null", "host": "a:1"}, False),
        ({"origin": "null"}, False),
        ({"host": "a:1"}, False),
        ({}, False),
    ],
)
def test_form_is_known_by_where_it_comes_from(
    headers: dict[str, str], own: bool
) -> None:
    assert is_own(request(headers), {"token": TOKEN}, TOKEN) is own
    assert not is_own(request(headers), {"token": TOKEN[1:]}, TOKEN)
    assert not is_own(request(headers), {}, TOKEN)


@pytest.mark.parametrize(
    ("given", "led_to"),
    [
        ("/", "/"),
        ("/recordings?text=a&cursor=b", "/recordings?text=a&cursor=b"),
        ("/calls/2026-x_y.z", "/calls/2026-x_y.z"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("evil", "/"),
        ("", "/"),
        ("/a\r\nb", "/"),
        ("/" + "a" * 2000, "/"),
    ],
)
def test_nobody_is_led_elsewhere_after_logging_in(given: str, led_to: str) -> None:
    assert own_path(given) == led_to
