"""Serve a bundle over HTTP and gRPC; needs ``coterie[serve]`` when a server is started, not when imported."""

from coterie.runtime.serving._launch import running_server, serve
from coterie.runtime.serving._process import Addresses
from coterie.runtime.serving._settings import Settings

__all__ = ["Addresses", "Settings", "running_server", "serve"]
