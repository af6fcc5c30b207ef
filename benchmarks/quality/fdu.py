"""FDU-MTL: sentiment of reviews in 16 domains, of which the papers have 14."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.quality._design import ROOT, Comparison, Protocol, Study, System

RATES = {"preset": (), "lr-1e-3": ("trainer.lr=1e-3",), "lr-4e-3": ("trainer.lr=4e-3",)}
"""What every network of words is tried with; the presets have 2e-3."""

PARTS = {
    "text-hard": "the n-gram bag alone, shared by all domains (hard sharing)",
    "text-gates": "the bag and gated experts",
    "text-clusters": "the bag and two cluster layers",
}
"""What is left of the preset text without its other parts: files of systems/."""


def as_published(source: Path, destination: Path) -> None:
    """Write the data as papers use it: dev and leaked texts are trained on too.

    dev stays as it is beside, so that the best epoch is the last one or nearly so: settings are those that
    the honest protocol chose.
    """
    table = pq.read_table(source)
    split = table["split"]
    again = table.filter(pc.equal(split, "dev"))
    leaked = pc.if_else(pc.equal(split, "leaked"), "train", split)
    columns = table.schema.names
    trained = again.set_column(
        columns.index("split"), "split", pa.array(["train"] * len(again), pa.string())
    ).select(columns)
    whole = table.set_column(columns.index("split"), "split", leaked).select(columns)
    pq.write_table(pa.concat_tables([whole.cast(trained.schema), trained]), destination)


FDU = Study(
    name="fdu",
    title="Sentiment of reviews in 14 and 16 domains, FDU-MTL",
    description=ROOT / "examples" / "fdu-mtl" / "data.yaml",
    paths=("data.path",),
    groups={"14": ("MR", "imdb"), "16": ()},
    protocols=(
        Protocol(name="honest", title="Honest: trained on train, chosen on dev, test read once"),
        Protocol(
            name="published",
            title="As published: trained on train, dev and the leaked texts, settings of the honest protocol",
            prepare=as_published,
        ),
    ),
    systems=(
        System(name="linear-pooled", title="n-grams + logistic regression, pooled", maker="linear"),
        System(name="linear-single", title="n-grams + logistic regression, one a domain", maker="linear"),
        System(name="ncmtl", title="NCMTL", configuration="ncmtl", tries=RATES, claim=True),
        System(
            name="hard-share-ncmtl",
            title="HardShare with NCMTL's encoder",
            configuration="hard-share-ncmtl",
            tries=RATES,
            claim=True,
        ),
        System(name="hard-share", title="HardShare, LSTM", configuration="hard-share", tries=RATES),
        System(name="lstm", title="LSTM, one a domain", configuration="lstm", tries=RATES),
        System(name="textcnn", title="TextCNN, one a domain", configuration="textcnn", tries=RATES),
        System(name="han", title="HAN, one a domain", configuration="han", tries=RATES),
        System(name="soft-share", title="SoftShare, L2", configuration="soft-share", tries=RATES),
        System(
            name="soft-share-trace",
            title="SoftShare, trace norm",
            configuration="soft-share-trace",
            tries=RATES,
        ),
        System(name="asp-mtl", title="ASP-MTL", configuration="asp-mtl", tries=RATES),
        System(name="text", title="coterie, preset text", configuration="text", claim=True),
        System(name="text-views", title="coterie, preset text-views", configuration="text-views", claim=True),
        System(
            name="text-together",
            title="text-views, its views trained together",
            configuration="text-views",
            options=("model.stages.0.alone=false",),
            part="ablations",
            protocols=("honest",),
        ),
        *(
            System(
                name=name,
                title=title,
                configuration=name,
                part="ablations",
                claim=True,
                protocols=("honest",),
            )
            for name, title in PARTS.items()
        ),
    ),
    comparisons=(
        Comparison(better="text-views", worse="linear-pooled"),
        Comparison(better="text-views", worse="text"),
        Comparison(better="text-views", worse="ncmtl"),
        Comparison(better="text-views", worse="text-together"),
        Comparison(better="text", worse="linear-pooled"),
        Comparison(better="text", worse="ncmtl"),
        Comparison(better="text", worse="text-hard"),
        Comparison(better="ncmtl", worse="hard-share-ncmtl"),
    ),
    ours="text-views",
    single="han",
    shown=("text-views", "text", "linear-pooled", "ncmtl", "hard-share-ncmtl", "han"),
)
