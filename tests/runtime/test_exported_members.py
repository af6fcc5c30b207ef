from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import coterie.runtime


def test_all_is_exactly_what_is_imported_for_the_public() -> None:
    source = Path(inspect.getfile(coterie.runtime)).read_text(encoding="utf-8")
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(coterie.runtime.__all__) == imported
    assert all(getattr(coterie.runtime, name) is not None for name in coterie.runtime.__all__)


def test_embedding_needs_neither_training_nor_server_libraries() -> None:
    code = (
        "import sys, coterie.runtime, coterie.runtime.serving\n"
        "names = {'torch', 'onnx', 'bentoml', 'grpc', 'starlette', 'google.protobuf', 'coterie.training',\n"
        "         'coterie.exporter', 'prometheus_client'}\n"
        "print(sorted(names & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
