r"""The quality study: is sharing by clusters and gates better than a model a task, or one for all?

python -m benchmarks.quality --resume            # what needs no file: the digits
python -m benchmarks.quality --resume --data fdu=fdu-mtl.parquet --data gum=gum.parquet \
    --data cifar=cifar100-train.npz,cifar100-test.npz

Four data sets, every system of the papers and ours, with the same budget and number of tries each. A try is
one training with one seed; it is scored on dev, and the best try of a system on dev is the one whose test
scores are read, once, for every protocol and seed. Each run leaves one JSON file in
benchmarks/results/quality; ``--resume`` makes what is missing. ``docs/results.md`` is made from them.

_design.py      what a study is: systems, their tries, protocols, seeds
digits.py fdu.py cifar.py gum.py    the four studies
_next.py        which run comes next, and which try was chosen
_train.py       makes a run with the command line, as a user would
_linear.py      makes a run of TF-IDF and logistic regression
_record.py      a run's JSON file
_tables.py      means, deviations and paired tests over the records
_sharing.py     the learned plans, compared between seeds
_figures.py     pictures of all that
"""

PARTS = {
    "ablations": "What each part is worth, and each way past the papers",
    "sweeps": "What K and the price of an expert buy",
}
"""The tables of a study beside that of its systems, and their titles."""
