"""``coterie top``: what goes on in a running server, as a table."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from typer.testing import CliRunner

from coterie.cli.main import MISTAKE, app
from coterie.runtime.serving.observing._scrape import Scrape, Window, parse

from .watched import ROW, Watched


def run(*arguments: str) -> tuple[int, str]:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    result = runner.invoke(app, ["top", *arguments])
    return result.exit_code, result.output


@contextmanager
def traffic(watched: Watched) -> Iterator[None]:
    """Ask, and ask what is not there, until the block is left."""
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=watched.http) as client:
            while not over.is_set():
                client.post("/predict", json={"task": "price", "inputs": [ROW] * 3})
                client.post("/ask", json={"tasks": ["tags"], "inputs": [ROW]})
                client.post("/predict", json={"task": "nothing", "inputs": [ROW]})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_table_says_what_each_task_does(watched: Watched) -> None:
    with traffic(watched):
        code, output = run(watched.http, "--once", "--interval", "2")
    assert code == 0, output
    head, *lines = output.splitlines()
    assert head.startswith("2 workers · ")
    assert " v1 served" in lines[0]
    cells = {line.split()[0]: line.split()[1:] for line in lines[1:] if line.split()}
    requests, rows, batch, *times, refused, errors = map(float, cells["price"])
    assert requests > 1
    assert rows == pytest.approx(3 * requests, rel=0.5)
    assert batch >= 3
    assert 0 < times[0] <= times[1]
    assert 0 < times[2] <= times[3]
    assert (refused, errors) == (0, 0)
    assert float(cells["unknown"][-1]) > 1
    assert cells["unknown"][2] == "-"
    assert float(cells["tags"][1]) > 1  # asked through the router alone
    assert float(cells["all"][0]) > requests
    assert "100 %" in output  # of the runs that needed the trunk


def test_only_the_busiest_tasks_are_shown(watched: Watched) -> None:
    watched.predict("topic")
    watched.predict("mood")
    code, output = run(watched.http, "--once", "--interval", "0.2", "--rows", "1")
    assert code == 0
    assert "more; --rows shows them" in output


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "localhost:3000", "ftp://x"])
def test_a_server_that_cannot_be_reached_is_told_in_words(address: str) -> None:
    code, output = run(address, "--once")
    assert code == MISTAKE
    assert address in output
    assert "Traceback" not in output


def test_another_server_is_told_from_ours() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"python_info 1\n")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        code, output = run(f"http://127.0.0.1:{server.server_port}", "--once")
        thread.join()
    assert (code, "no coterie server" in output) == (MISTAKE, True)


def window(before: str, after: str) -> Window:
    first, second = (parse(text + "\ncoterie_workers 1\n", "here") for text in (before, after))
    return Window(first, Scrape(first.moment + 2.0, second.samples))


def test_rates_and_quantiles_are_of_what_was_added() -> None:
    def histogram(*counts: int) -> str:
        bounds = ("0.01", "0.02", "+Inf")
        return (
            "\n".join(f'h_bucket{{le="{b}"}} {c}' for b, c in zip(bounds, counts, strict=True))
            + f"\nn_total {counts[-1]}"
        )

    seen = window(histogram(100, 100, 100), histogram(101, 104, 104))
    assert seen.rate("n_total") == 2.0
    assert seen.quantile("h", 0.25) == pytest.approx(0.01)
    assert seen.quantile("h", 0.625) == pytest.approx(0.015)
    assert seen.quantile("nothing", 0.5) is None
    assert window(histogram(5, 5, 5), histogram(5, 5, 5)).quantile("h", 0.5) is None
    assert window(histogram(0, 0, 0), histogram(0, 0, 3)).quantile("h", 0.99) == 0.02
    assert window("n_total 50", "n_total 3").rate("n_total") == 0.0  # it began anew
