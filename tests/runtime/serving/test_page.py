"""The page for people, in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from coterie.runtime.serving import Addresses

from .guarded import Guarded

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]

QUIET = ("background-networking", "component-update", "sync", "quic", "gpu")
"""What a browser would do besides, and nobody has asked it for."""
SECONDS = 20


class Visit:
    """The page of one server, and all that the browser asked for on the way."""

    def __init__(self, browser: playwright.Browser, address: str) -> None:
        self.page = browser.new_page()
        self.page.set_default_timeout(1000 * SECONDS)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type == "error" else None,
        )
        self.address = address
        self.page.goto(f"http://{address}/")
        self.page.locator(".opblock").first.wait_for()

    def operations(self) -> set[str]:
        return {
            " ".join(text.split()[:2]) for text in self.page.locator(".opblock-summary").all_inner_texts()
        }

    def executed(self, method: str, path: str) -> tuple[str, str]:
        """Press Execute as the operation stands; return the status and the body that the page shows."""
        box = self.page.locator(f".opblock-{method}", has=self.page.locator(f'[data-path="{path}"]'))
        if not box.locator("button.execute").count():
            box.locator(".opblock-summary").click()
        with self.page.expect_response(f"**{path}") as response:
            box.locator("button.execute").click()
        status = str(response.value.status)
        shown = box.locator(".live-responses-table tbody tr", has_text=status)
        return status, shown.locator("pre").first.inner_text()

    def elsewhere(self) -> list[str]:
        """Return what was asked of anybody but the server."""
        return [url for url in self.asked if urlsplit(url).netloc != self.address and url[:5] != "data:"]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    arguments = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in QUIET)]
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def test_every_example_of_the_page_is_answered_there(
    browser: playwright.Browser, server: Addresses, text_server: Addresses
) -> None:
    for address in (server.http, text_server.http):
        visit = Visit(browser, address)
        assert visit.operations() == {
            *("POST /predict", "POST /ask", "POST /tasks", "GET /tasks", "GET /versions"),
            *("GET /livez", "GET /readyz", "GET /metrics"),
        }
        for path in ("/predict", "/ask"):
            status, body = visit.executed("post", path)
            assert status == "200"
            assert '"label": "' in body
        status, body = visit.executed("get", "/tasks")
        assert (status, '"name": "mood"' in body) == ("200", True)
        assert visit.executed("get", "/readyz")[0] == "200"
        assert visit.complaints == []
        assert len(visit.asked) > 5
        assert visit.elsewhere() == []
        visit.page.close()


def test_a_key_is_given_under_authorize(browser: playwright.Browser, guarded: Guarded) -> None:
    visit = Visit(browser, guarded.at.http)
    status, body = visit.executed("get", "/tasks")
    assert (status, "with a key only" in body) == ("401", True)
    visit.page.locator("button.authorize").first.click()
    visit.page.locator(".auth-container input").fill(guarded.keys["some"])
    visit.page.locator(".auth-container button.authorize").click()
    visit.page.locator(".auth-container button.btn-done").click()
    status, body = visit.executed("get", "/tasks")
    assert (status, '"name": "mood"' in body, "price" in body) == ("200", True, False)
    assert visit.elsewhere() == []
    visit.page.close()
