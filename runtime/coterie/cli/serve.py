"""``coterie serve``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from coterie.cli._extras import extra
from coterie.cli._public_key import PublicKeyOption

LogFormat = Literal["text", "json"]

EXAMPLES = (
    "Examples:\n\n"
    "$ coterie serve bundles/reviews\n\n"
    "$ coterie serve bundles/reviews --host 0.0.0.0 --http-port 8000 --grpc-port 8001 --threads 1\n\n"
    "$ coterie serve bundles/reviews --public-key team.pub.pem\n\n"
    "$ coterie serve bundles/reviews --keys keys.json --tls-cert server.pem --tls-key server.key\n\n"
    "$ curl localhost:3000/tasks\n\n"
    '$ curl localhost:3000/ask --json \'{"inputs": ["a fine book"]}\''
)


def serve(  # noqa: PLR0917 - typer passes them by name
    bundle: Annotated[Path, typer.Argument(help="The bundle to serve, or the store of bundles.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    http_port: Annotated[
        int, typer.Option("--http-port", "--http", min=1, max=65535, help="Port for HTTP.")
    ] = 3000,
    grpc_port: Annotated[
        int, typer.Option("--grpc-port", "--grpc", min=0, max=65535, help="Port for gRPC; 0 serves none.")
    ] = 3001,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads that one run of the engine may use, in each worker.",
            show_default="one a core",
        ),
    ] = None,
    public_key: PublicKeyOption = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="File of the API keys that requests must bring (coterie key makes them)."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate in PEM; both transports then speak TLS only.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key in PEM.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="Authority in PEM, of whose certificates every client must show one."),
    ] = None,
    task_weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK=NUMBER", help="How much more often than others a task has its turn; repeatable."
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How the workers write their log.", show_default="text")
    ] = None,
    access_log: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of the answered requests that have a line in the log; 0 is no lines at all.",
            show_default="1",
        ),
    ] = None,
) -> None:
    """Serve every task of a bundle over HTTP and gRPC from one process.

    Both speak the Open Inference Protocol v2: each task is a model, and the model "router" answers for many
    tasks at once. tritonclient, KServe clients and anything that speaks to Triton work unmodified. HTTP also
    has typed JSON endpoints (/predict, /ask, /tasks; documented at /), health at /livez and /readyz, and
    Prometheus metrics at /metrics. Of a store (coterie deploy) it serves the current
    version, and follows when that changes. Ctrl-C or SIGTERM stops it, after the requests it has accepted.
    """
    from coterie.cli._folders import check_bundle
    from coterie.runtime.store import is_store

    if not is_store(bundle):
        check_bundle(bundle)
    with extra("serve", "coterie serve"):
        from coterie.runtime.serving import serve as start

    sys.exit(
        start(
            bundle,
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            workers=workers,
            threads=threads,
            public_key=public_key,
            keys=keys,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            task_weights=dict(map(_weight, task_weight)) if task_weight else None,
            log_format=log_format,
            access_log=access_log,
        )
    )


def _weight(given: str) -> tuple[str, float]:
    task, _, number = given.rpartition("=")
    try:
        return task, float(number)
    except ValueError as error:
        raise typer.BadParameter(f"{given!r} is no TASK=NUMBER", param_hint="--task-weight") from error
