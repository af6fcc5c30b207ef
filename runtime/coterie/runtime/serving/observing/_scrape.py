"""Reading a server's metrics, and what went on between two readings."""

from __future__ import annotations

import math
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from coterie.runtime.errors import ConfigError

_SECONDS = 10.0
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Scrape:
    """One reading.

    Attributes:
        moment: When, on the clock of ``time.monotonic``.
        samples: Values by the name of the series, and by its labels in the order of their names.
    """

    moment: float
    samples: dict[str, dict[Labels, float]]

    def find(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        """Yield the series of a name that have these labels among theirs."""
        wanted = set(labels.items())
        for own, value in self.samples.get(name, {}).items():
            if wanted <= set(own):
                yield dict(own), value

    def total(self, name: str, **labels: str) -> float:
        """Return their sum."""
        return sum(value for _, value in self.find(name, **labels))

    def names_of(self, name: str, label: str) -> list[str]:
        """Return the values that a label has, sorted."""
        return sorted({own[label] for own, _ in self.find(name)})


@dataclass(frozen=True)
class Shown:
    """What a client trusts, and shows of itself, where a server speaks TLS.

    Attributes:
        authority: Whose certificates are trusted, in PEM; the system's where it is not given.
        certificate: The client's own, in PEM, for a server that wants one.
        key: That one's private key, in PEM.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return what a connection is made with.

        Raises:
            ConfigError: If a file is none, or there is a key and no certificate.
        """
        if self.key is not None and self.certificate is None:
            raise ConfigError("the server cannot be asked", ["the key is a certificate's: give that too"])
        try:
            made = ssl.create_default_context(cafile=self.authority)
            if self.certificate is not None:
                made.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            problem = f"a certificate or key cannot be read: {error.strerror or error}"
            raise ConfigError("the server cannot be asked", [problem]) from error
        return made


def scrape(address: str, *, api_key: str = "", shown: Shown | None = None) -> Scrape:
    """Read the metrics of a server.

    Args:
        address: The server's, ``http://host:port``.
        api_key: A key that may read them, where the server has keys.
        shown: For a server that speaks TLS.

    Raises:
        ConfigError: If nobody answers there, or not with the metrics of a coterie server.
    """
    url = f"{address.rstrip('/')}/metrics"
    if not url.startswith(("http://", "https://")):
        raise ConfigError("the server cannot be asked", [f"{address}: give an address like http://host:3000"])
    headers = {"X-Api-Key": api_key} if api_key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http or https, see above
    context = (shown or Shown()).context() if url.startswith("https://") else None
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS, context=context) as response:  # noqa: S310
            text = response.read().decode()
    except urllib.error.HTTPError as error:
        why = "it wants another key (--api-key)" if error.code in (401, 403) else f"it answers {error.code}"
        raise ConfigError("the server's metrics cannot be read", [f"{url}: {why}"]) from error
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        problem = f"{url}: {reason}; is it running, and is this its HTTP port?"
        raise ConfigError("the server's metrics cannot be read", [problem]) from error
    return parse(text, url)


def parse(text: str, source: str) -> Scrape:
    """Return the reading in a text of Prometheus's.

    Raises:
        ConfigError: If it is none, or not a coterie server's; it names the ``source``.
    """
    samples: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                own = tuple(sorted(sample.labels.items()))
                samples.setdefault(sample.name, {})[own] = sample.value
    except ValueError as error:
        raise ConfigError("the answer is not metrics", [f"{source}: is this a server's address?"]) from error
    if "coterie_workers" not in samples:
        raise ConfigError("this is no coterie server", [f"{source}: its metrics know nothing of coterie"])
    return Scrape(time.monotonic(), samples)


@dataclass(frozen=True)
class Window:
    """What went on between two readings of one server."""

    before: Scrape
    after: Scrape

    def count(self, name: str, **labels: str) -> float:
        """Return how much the counters of these labels grew."""
        # A worker, or the server, that began anew counts from 0.
        return max(0.0, self.after.total(name, **labels) - self.before.total(name, **labels))

    def rate(self, name: str, **labels: str) -> float:
        """Return by how much they grew in a second."""
        return self.count(name, **labels) / max(1e-9, self.after.moment - self.before.moment)

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """Return what so large a share of a histogram's values were below; ``None`` if there were none.

        Within a bucket the values are taken to be spread evenly, as Prometheus's ``histogram_quantile`` does.
        """
        bounds = {float(own["le"]) for own, _ in self.after.find(f"{name}_bucket", **labels)}
        counts = {
            bound: self.count(f"{name}_bucket", **labels, le="+Inf" if math.isinf(bound) else str(bound))
            for bound in sorted(bounds)
        }
        wanted = share * max(counts.values(), default=0.0)
        if not wanted:
            return None
        below, least = 0.0, 0.0
        for bound, count in counts.items():
            if count >= wanted:
                if math.isinf(bound):
                    return least
                return least + (bound - least) * (wanted - below) / max(1e-9, count - below)
            below, least = count, bound
        return least
