"""What the tests in a real browser share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HOSTILE = (
    "</style></title></script><script>document.title='broken'</script><img src=x onerror=\"document.title='broken'\">"
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def opened(
    browser: Any, path: Path, fragment: str = "", *, ready: str = "html.ready", **options: Any
) -> tuple[Any, list[str], list[str]]:
    """Open a page, wait for its panels, and return it with its console messages and its requests."""
    page = browser.new_page(**options)
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri() + fragment)
    page.wait_for_selector(ready, state="attached", timeout=20_000)
    return page, messages, [url for url in requests if not url.startswith(("data:", "blob:"))]
