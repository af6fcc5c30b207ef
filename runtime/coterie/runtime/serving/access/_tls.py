"""The certificates of a server, which both transports show."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from coterie.runtime.errors import ConfigError


@dataclass(frozen=True)
class Tls:
    """Files in PEM.

    Attributes:
        cert: The certificate, with those that lead to its authority.
        key: Its private key, without a passphrase.
        client_ca: Authority of the certificates that clients must show; ``None`` asks for none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Return what is other once a file is another or has other contents; zeros of one that is missing."""
        found = []
        for file in (self.cert, self.key, self.client_ca):
            if file is not None:
                try:
                    status = file.stat()
                    found.append((status.st_mtime_ns, status.st_size, status.st_ino))
                except OSError:
                    found.append((0, 0, 0))
        return tuple(found)

    def check(self) -> None:
        """Check that the files are there and belong together.

        Raises:
            ConfigError: If not; lists the problems.
        """
        problems = [
            f"{file.name}: there is no such file"
            for file in (self.cert, self.key, self.client_ca)
            if file is not None and not file.is_file()
        ]
        if not problems:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                # A server cannot be asked for a passphrase; without this one would be, at the terminal.
                context.load_cert_chain(self.cert, self.key, password=b"")
            except (OSError, ValueError) as error:
                problems.append(f"{self.cert.name}, {self.key.name}: no certificate and its key ({error})")
            try:
                context.load_verify_locations(self.client_ca or self.cert)
            except (OSError, ValueError) as error:
                problems.append(f"{(self.client_ca or self.cert).name}: no certificate ({error})")
        if problems:
            raise ConfigError("the server cannot speak TLS", problems)
