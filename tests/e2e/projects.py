"""Six small projects: data on disk and a YAML file, as a user would have them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

FAST = {"epochs": 8, "batch_size": 32, "lr": 5e-3, "gate_lr": 5e-2, "threads": 1}


def cluster(name: str, clusters: int, width: int) -> dict[str, Any]:
    block = {"kind": "linear", "width": width, "residual": True, "init_scale": 0.3}
    return {
        "kind": "cluster",
        "name": name,
        "clusters": clusters,
        "warmup": 1,
        "freeze_after": 6,
        "block": block,
    }


def features(folder: Path) -> Path:
    """A wide CSV with empty cells: classifications of 2, 3 and 5 classes, yes/no labels, numbers."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((240, 6)).round(4)
    total = x @ rng.standard_normal((6, 4))
    columns: dict[str, list[Any]] = {f"x_{at}": x[:, at].tolist() for at in range(6)}
    columns["mood"] = np.array(["bad", "fair", "good"])[np.digitize(total[:, 0], (-1, 1))].tolist()
    columns["size"] = np.array(["xs", "s", "m", "l", "xl"])[np.digitize(total[:, 1], (-2, -1, 1, 2))].tolist()
    columns["odd"] = np.array(["no", "yes"])[(total[:, 0] * total[:, 1] > 0).astype(int)].tolist()
    columns["is spam"] = (total[:, 2] > 0).astype(int).tolist()
    columns["urgent"] = (total[:, 2] + total[:, 3] > 0).astype(int).tolist()
    columns["price"] = (10 + 3 * total[:, 3]).round(3).tolist()
    columns["weight"] = (total[:, 0] - total[:, 3]).round(3).tolist()
    tasks = list(columns)[6:]
    for name in tasks:
        for row in rng.choice(240, 40, replace=False):
            columns[name][row] = ""
    _write_csv(folder / "table.csv", list(columns), list(zip(*columns.values(), strict=True)))
    kinds = {"is spam": "multilabel", "urgent": "multilabel", "price": "regression", "weight": "regression"}
    data = {
        "kind": "table",
        "path": "table.csv",
        "features": "x_*",
        "target": tasks,
        "task_kind": kinds,
        "dev_share": 0.2,
        "test_share": 0.2,
    }
    stages = [
        {"kind": "hard", "name": "trunk", "block": {"kind": "linear", "width": 16}},
        {"kind": "gated", "name": "experts", "experts": 4, "mixture": "gaussian", "density_penalty": 0.1}
        | {"block": {"kind": "mlp", "widths": [12, 8]}},
        cluster("cluster1", 2, 8),
        cluster("cluster2", 4, 8),
    ]
    return _write(folder, "features", data, stages)


def texts(folder: Path) -> Path:
    """A long CSV: three shops' reviews, good or bad."""
    rng = np.random.default_rng(1)
    shared = {"good": ["fine", "lovely", "great"], "bad": ["dull", "awful", "poor"]}
    own = {"books": ["gripping", "long"], "music": ["loud", "flat"], "tools": ["sturdy", "broken"]}
    rows = []
    for number in range(300):
        shop = list(own)[number % 3]
        label = ("good", "bad")[number // 3 % 2]
        words = [
            *rng.choice(shared[label], 2),
            own[shop][label == "bad"],
            shop,
            *rng.choice(["a", "the", "it"], 3),
        ]
        rows.append((shop, label, " ".join(rng.permutation(words))))
    _write_csv(folder / "reviews.csv", ["shop", "verdict", "review"], rows)
    data = {"kind": "table", "path": "reviews.csv", "task": "shop", "target": "verdict", "text": "review"}
    stages = [
        {
            "kind": "hard",
            "name": "trunk",
            "block": {"kind": "ngram_bag", "width": 8, "ngrams": 2, "buckets": 512},
        },
        {"kind": "gated", "name": "experts", "experts": 3, "mixture": "mean", "density_penalty": 0.05}
        | {"block": {"kind": "linear", "width": 8}},
        cluster("cluster1", 2, 8),
    ]
    return _write(folder, "texts", data | {"dev_share": 0.2}, stages)


def images(folder: Path) -> Path:
    """A NumPy archive of 8 x 8 images: where the bright spot is, how bright, how large."""
    rng = np.random.default_rng(2)
    count = 240
    pixels = rng.integers(0, 60, (count, 8, 8, 1))
    row, column, shade = rng.integers(0, 2, count), rng.integers(0, 2, count), rng.integers(0, 3, count)
    for at in range(count):
        top, left = 4 * row[at], 4 * column[at]
        pixels[at, top : top + 4, left : left + 4] += 60 * (1 + shade[at])
    np.savez(
        folder / "spots.npz",
        images=pixels.clip(0, 255).astype(np.uint8),
        row=row,
        quarter=2 * row + column,
        shade=shade,
        mean=pixels.mean(axis=(1, 2, 3)).astype(np.float32),
    )
    data = {
        "kind": "arrays",
        "path": "spots.npz",
        "images": "images",
        "target": ["quarter", "shade", "mean"],
        "dev_share": 0.2,
    }
    stages = [
        {"kind": "gated", "name": "experts", "experts": 4, "mixture": "ones", "density_penalty": 0.1}
        | {"block": {"kind": "conv", "filters": [6, 6]}},
        {"kind": "hard", "name": "neck", "block": {"kind": "linear", "width": 12}},
        cluster("cluster1", 2, 12),
    ]
    return _write(folder, "images", data, stages)


def taggings(folder: Path) -> Path:
    """JSON lines of tagged sentences: a word's class, whether it is capital, names of one or two words."""
    rng = np.random.default_rng(3)
    words = {"DET": ["the", "a"], "NOUN": ["cat", "dogs", "house"], "VERB": ["sees", "sold"]}
    rows = []
    for _ in range(240):
        kinds = ["DET", "NOUN", "VERB", *["DET", "NOUN"] * rng.integers(0, 3)]
        tokens, spans = [str(rng.choice(words[kind])) for kind in kinds], ["O"] * len(kinds)
        if rng.random() < 0.7:
            name = ["Ann", "Lee"][: rng.integers(1, 3)]
            tokens, kinds = [*name, *tokens[2:]], ["NOUN"] * len(name) + kinds[2:]
            spans = ["B-name", "I-name"][: len(name)] + spans[2:]
        capital = ["yes" if word.istitle() else "no" for word in tokens]
        rows.append({"words": tokens, "class": kinds, "capital": capital, "name": spans})
    lines = (json.dumps(row) + "\n" for row in rows)
    (folder / "sentences.jsonl").write_text("".join(lines), encoding="utf-8")
    data = {
        "kind": "table",
        "path": "sentences.jsonl",
        "text": "words",
        "target": ["class", "capital", "name"],
        "tokens": {"min_frequency": 1, "word_length": 6},
        "dev_share": 0.2,
    }
    lstm = {"kind": "lstm", "width": 6, "bidirectional": True, "pool": "none"}
    words_block = {"kind": "word_chars", "width": 8, "characters": 4, "filters": 6}
    stages = [
        {"kind": "hard", "name": "words", "block": words_block},
        {"kind": "gated", "name": "experts", "experts": 3, "mixture": "mean", "density_penalty": 0.1}
        | {"block": lstm},
        cluster("cluster1", 2, 1) | {"block": lstm},
    ]
    return _write(folder, "taggings", data, stages, lr=2e-2, batch_size=8)


def listings(folder: Path) -> Path:
    """A CSV of offers, each a text and some numbers: what is asked needs the one, the other, or both."""
    rng = np.random.default_rng(4)
    praise = {True: ["lovely", "bright", "quiet"], False: ["damp", "dark", "loud"]}
    rows = []
    for _ in range(300):
        good, size, rent = bool(rng.integers(2)), *rng.standard_normal(2).round(4)
        words = [*rng.choice(praise[good], 2), *rng.choice(["a", "flat", "near", "town"], rng.integers(1, 5))]
        bargain = "yes" if (rent < 0) == good else "no"
        large = ["small", "middling", "large"][int(np.digitize(size, (-0.5, 0.5)))]
        rows.append((" ".join(rng.permutation(words)), size, rent, ["bad", "good"][good], large, bargain))
    header = ["offer", "size", "rent", "mood", "room", "bargain"]
    _write_csv(folder / "offers.csv", header, rows)
    data = {
        "kind": "table",
        "path": "offers.csv",
        "inputs": {"offer": {"text": "offer"}, "numbers": {"features": ["size", "rent"]}},
        "target": ["mood", "room", "bargain"],
        "dev_share": 0.2,
    }
    encoders = {
        "offer": {"kind": "ngram_bag", "width": 8, "buckets": 64},
        "numbers": {"kind": "linear", "width": 6},
    }
    return _write(folder, "listings", data, _mixed(12), inputs=encoders)


def products(folder: Path) -> Path:
    """A NumPy archive of products, each a picture, its measures and its year."""
    rng = np.random.default_rng(5)
    count = 240
    shade, measures = rng.integers(0, 3, count), rng.standard_normal((count, 3))
    pixels = rng.integers(0, 60, (count, 8, 8)) + 60 * shade[:, None, None]
    np.savez(
        folder / "products.npz",
        pictures=pixels.astype(np.uint8),
        measures=measures,
        year=rng.integers(1990, 2020, (count, 1)),
        shade=shade,
        heavy=(measures[:, 0] > 0).astype(int),
        price=(10 * shade + measures[:, 1]).astype(np.float32),
    )
    data = {
        "kind": "arrays",
        "path": "products.npz",
        "inputs": {
            "picture": {"images": "pictures"},
            "measures": {"features": "measures"},
            "year": {"features": "year"},
        },
        "target": ["shade", "heavy", "price"],
        "dev_share": 0.2,
    }
    convolved = [{"kind": "conv", "filters": [4, 4]}, {"kind": "linear", "width": 6}]
    return _write(folder, "products", data, _mixed(12), inputs={"picture": convolved})


def _mixed(width: int) -> list[dict[str, Any]]:
    gated = {"kind": "gated", "name": "experts", "experts": 3, "mixture": "mean", "density_penalty": 0.1}
    return [gated | {"block": {"kind": "linear", "width": width}}, cluster("cluster1", 2, width)]


PROJECTS = {
    "features": features,
    "texts": texts,
    "images": images,
    "taggings": taggings,
    "listings": listings,
    "products": products,
}


def _write(
    folder: Path,
    name: str,
    data: dict[str, Any],
    stages: list[dict[str, Any]],
    *,
    inputs: dict[str, Any] | None = None,
    **trainer: Any,
) -> Path:
    path = folder / f"{name}.yaml"
    model = {"stages": stages} if inputs is None else {"inputs": inputs, "stages": stages}
    config = {"name": name, "data": data, "model": model, "trainer": FAST | trainer}
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def _write_csv(path: Path, header: list[str], rows: list[Any]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
