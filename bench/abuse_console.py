"""The console in `./dev bench abuse`: somebody who is signed in and opens a page again and again, and what attackers send it."""

from __future__ import annotations

import html
import http.client
import re
import ssl
import time
from base64 import b32decode
from collections.abc import Callable
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

from klinket.controller.console.sign_in import totp

EMAIL, PASSWORD = "ada@example.com", "seven quiet herons at dawn"
ROOT = "/console"
#: What is opened: the first page, which counts what there is.
PAGE = ROOT + "/"
SIGN_IN = ROOT + "/sign-in"
PATIENCE_SECONDS = 10.0
_HIDDEN = re.compile(r'<input type="hidden" name="([\w]+)" value="([^"]*)">')


class Visitor:
    """A browser without scripts, with one connection a request, as those who come anew have it."""

    def __init__(self, url: str, authority: str) -> None:
        self._url = url
        self._context = ssl.create_default_context(cafile=authority)
        self._cookies: dict[str, str] = {}

    def get(self, path: str) -> str:
        """Open a page; raises ConnectionError for any other answer than a page."""
        return self._ask("GET", path, {})

    def post(self, path: str, page: str = "", **fields: str) -> str:
        """Send a form, with what `page` hides in it, and follow where it leads."""
        hidden = {name: html.unescape(value) for name, value in _HIDDEN.findall(page)}
        return self._ask("POST", path, {**hidden, **fields})

    def _ask(self, method: str, path: str, fields: dict[str, str]) -> str:
        for _ in range(5):
            connection = http.client.HTTPSConnection(urlsplit(self._url).netloc, timeout=PATIENCE_SECONDS, context=self._context)
            try:
                headers = {
                    "Origin": self._url,
                    "Sec-Fetch-Site": "same-origin",
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
                }
                connection.request(method, path, urlencode(fields) if method == "POST" else None, headers)
                answer = connection.getresponse()
                text = answer.read().decode()
            finally:
                connection.close()
            for header in answer.headers.get_all("Set-Cookie", []):
                self._cookies |= {name: one.value for name, one in SimpleCookie(header).items()}
            if answer.status == 303:
                method, path, fields = "GET", answer.headers["Location"], {}
                continue
            if answer.status != 200:
                raise ConnectionError(f"{path}: {answer.status}")
            return text
        raise ConnectionError(f"{path}: led on and on")

    def sign_in(self, link: str) -> None:
        """Become the first admin by the one-time link that the first start has printed, with an authenticator app."""
        page = self.post(f"{SIGN_IN}/link", link=link)
        self.post(f"{SIGN_IN}/link/account", page, link=link, email=EMAIL, password=PASSWORD, again=PASSWORD)
        page = self.get(f"{SIGN_IN}/set-up/app")
        shown = re.search(r'id="secret">([A-Z2-7 ]+)<', page)
        if shown is None:
            raise ConnectionError("no secret for an authenticator app is shown")
        secret = b32decode(shown[1].replace(" ", ""))
        self.post(f"{SIGN_IN}/set-up/app", page, code=totp.code_at(secret, time.time()))


def pages(url: str, authority: str, link: str) -> Callable[[], None]:
    """Return a round that opens a page of the console, signed in; the sign-in is done before the first."""
    visitor = Visitor(url, authority)
    visitor.sign_in(link)

    def work() -> None:
        if "form_token" not in visitor.get(PAGE):
            raise ConnectionError("the page is not that of somebody signed in")

    return work


# ---- what attackers send


def form(url: str, path: str, body: bytes, length: int | None = None) -> bytes:
    """Return a request as a browser sends a form; `length`: what it announces."""
    host = urlsplit(url).netloc
    head = (
        f"POST {path} HTTP/1.1", f"Host: {host}", f"Origin: {url}", "Sec-Fetch-Site: same-origin", "Connection: close",
        "Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body) if length is None else length}",
    )  # fmt: skip
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def guess(url: str, number: int) -> bytes:
    """Return a sign-in with a wrong password: every other time in the name of somebody there is."""
    email = EMAIL if number % 2 else f"nobody-{number}@example.com"
    return form(url, SIGN_IN, urlencode({"email": email, "password": f"wrong guess {number}"}).encode())


def big_forms(url: str) -> list[bytes]:
    """Return forms that are too long, of too many fields, and of one that is long."""
    big = 1 << 20
    return [
        form(url, SIGN_IN, b"email=" + b"a" * big),
        form(url, SIGN_IN, b"a=b&" * 60_000),
        form(url, SIGN_IN, b"email=" + b"%" * 200_000),
        form(url, SIGN_IN, b"email=a", length=1 << 40),
        form(url, f"{SIGN_IN}/link", urlencode({"link": "#" + "a" * 200_000}).encode()),
        form(url, f"{ROOT}/team/services", b"name=" + b"a" * 200_000),
    ]
