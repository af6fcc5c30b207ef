"""TLS on both transports, with certificates made for the test."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import trustme
from tritonclient.utils import InferenceServerException

from coterie.runtime import ConfigError
from coterie.runtime.serving import Addresses, running_server
from coterie.runtime.serving.observing._scrape import Shown, scrape

from ..handmade import HandMade

UNREACHABLE = r"UNAVAILABLE|Deadline"


@dataclass
class Files:
    """A certificate authority, and what it signed."""

    ca: Path
    cert: Path
    key: Path


def make(folder: Path, name: str) -> Files:
    folder.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert(name)
    files = Files(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(files.ca))
    issued.private_key_pem.write_to_path(str(files.key))
    issued.cert_chain_pems[0].write_to_path(str(files.cert))
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    folder = tmp_path_factory.mktemp("tls")
    return {name: make(folder / name, "localhost") for name in ("server", "client", "foreign")}


@pytest.fixture(scope="module")
def secured(features: HandMade, files: dict[str, Files]) -> Iterator[Addresses]:
    own = files["server"]
    with running_server(features.path, threads=1, tls_cert=own.cert, tls_key=own.key) as at:
        yield at


@pytest.fixture(scope="module")
def mutual(features: HandMade, files: dict[str, Files]) -> Iterator[Addresses]:
    own = files["server"]
    with running_server(
        features.path, threads=1, tls_cert=own.cert, tls_key=own.key, tls_client_ca=files["client"].ca
    ) as at:
        yield at


def address(given: str | None) -> str:
    assert given is not None
    return given.replace("127.0.0.1", "localhost")


def over_http(at: Addresses, trusted: Files, shown: Files | None = None) -> None:
    context = ssl.create_default_context(cafile=str(trusted.ca))
    if shown is not None:
        context.load_cert_chain(shown.cert, shown.key)
    response = httpx.get(f"https://{address(at.http)}/v2/models/mood", verify=context)
    assert response.status_code == 200


def over_grpc(at: Addresses, trusted: Files, shown: Files | None = None) -> None:
    client = triton_grpc.InferenceServerClient(
        address(at.grpc),
        ssl=True,
        root_certificates=str(trusted.ca),
        private_key=str(shown.key) if shown else None,
        certificate_chain=str(shown.cert) if shown else None,
    )
    try:
        tensor = triton_grpc.InferInput("features", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 4), dtype=np.float32))
        assert client.infer("mood", [tensor], client_timeout=10).as_numpy("scores").shape == (1, 2)
    finally:
        client.close()


def test_both_transports_speak_tls(secured: Addresses, files: dict[str, Files]) -> None:
    over_http(secured, files["server"])
    over_grpc(secured, files["server"])
    context = {"ssl_context_factory": lambda: ssl.create_default_context(cafile=str(files["server"].ca))}
    client = triton_http.InferenceServerClient(address(secured.http), ssl=True, **context)
    assert client.is_server_ready()
    client.close()


def test_a_client_that_trusts_another_authority_hangs_up(secured: Addresses, files: dict[str, Files]) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        over_http(secured, files["foreign"])
    with pytest.raises(InferenceServerException, match=UNREACHABLE):
        over_grpc(secured, files["foreign"])


def test_a_server_with_tls_takes_nothing_plain(secured: Addresses) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://{secured.http}/readyz")


@pytest.mark.slow
def test_certificates_that_are_renewed_are_shown_to_who_comes_next(
    features: HandMade, files: dict[str, Files], tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def put(shown: Files) -> None:
        cert.write_bytes(shown.cert.read_bytes())
        time.sleep(0.3)  # meanwhile they do not belong together, and those before are shown
        key.write_bytes(shown.key.read_bytes())

    def shown_are(trusted: Files) -> bool:
        try:
            over_http(at, trusted)
            over_grpc(at, trusted)
        except (httpx.ConnectError, InferenceServerException):
            return False
        return True

    put(files["server"])
    with running_server(features.path, threads=1, tls_cert=cert, tls_key=key, poll_seconds=0.1) as at:
        over_http(at, files["server"])
        over_grpc(at, files["server"])
        put(files["foreign"])
        deadline = time.monotonic() + 20
        while not shown_are(files["foreign"]):
            assert time.monotonic() < deadline
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            over_http(at, files["server"])
        with pytest.raises(InferenceServerException, match=UNREACHABLE):
            over_grpc(at, files["server"])


def test_clients_show_a_certificate_of_the_right_authority(
    mutual: Addresses, files: dict[str, Files]
) -> None:
    over_http(mutual, files["server"], files["client"])
    over_grpc(mutual, files["server"], files["client"])
    for shown in (None, files["foreign"]):
        with pytest.raises(httpx.TransportError):
            over_http(mutual, files["server"], shown)
        with pytest.raises(InferenceServerException, match=UNREACHABLE):
            over_grpc(mutual, files["server"], shown)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tls_cert": "cert"}, "belong together"),
        ({"tls_client_ca": "ca"}, "only over TLS"),
        ({"tls_cert": "cert", "tls_key": "nowhere"}, "no such file"),
        ({"tls_cert": "cert", "tls_key": "foreign"}, "no certificate and its key"),
        ({"tls_cert": "cert", "tls_key": "key", "tls_client_ca": "key"}, "no certificate"),
    ],
)
def test_certificates_that_are_wrong_are_refused_at_once(
    features: HandMade, files: dict[str, Files], tmp_path: Path, given: dict[str, str], says: str
) -> None:
    own = files["server"]
    named = {"cert": own.cert, "key": own.key, "ca": own.ca, "foreign": files["foreign"].key}
    settings = {name: named.get(value, tmp_path / value) for name, value in given.items()}
    with pytest.raises(ConfigError, match=says), running_server(features.path, **settings):
        pass


def test_the_metrics_are_read_from_servers_with_tls(
    secured: Addresses, mutual: Addresses, files: dict[str, Files]
) -> None:
    own, mine = files["server"], files["client"]
    url = f"https://{address(secured.http)}"
    assert scrape(url, shown=Shown(own.ca)).total("coterie_workers") == 1
    with pytest.raises(ConfigError, match="CERTIFICATE_VERIFY_FAILED"):
        scrape(url)
    url = f"https://{address(mutual.http)}"
    assert scrape(url, shown=Shown(own.ca, mine.cert, mine.key)).total("coterie_workers") == 1
    with pytest.raises(ConfigError):
        scrape(url, shown=Shown(own.ca))
    with pytest.raises(ConfigError, match="give that too"):
        scrape(url, shown=Shown(own.ca, key=mine.key))
    with pytest.raises(ConfigError, match="cannot be read"):
        scrape(url, shown=Shown(own.cert.with_name("nowhere.pem")))
