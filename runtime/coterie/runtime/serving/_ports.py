"""Ports and addresses of this machine."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def numeric(host: str) -> str:
    """Return an address as a number: BentoML takes no name, and this one is every machine's own."""
    return "127.0.0.1" if host == "localhost" else host


def obstacle(host: str, port: int) -> str | None:
    """Return why a server cannot listen on a port, and what to do; None where it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            return f"{port} is not for every user: choose one above 1023, or ask for the right to it"
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"{port} is in use on {host}, choose another"
            return f"{host} is no address of this machine: give one, such as 127.0.0.1, or 0.0.0.0 for all"
    return None


def free_ports(host: str, count: int) -> list[int]:
    """Return so many ports on which nobody listens, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
