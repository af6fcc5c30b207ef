"""Means, deviations and paired tests over the records: all that docs/results.md says in figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.quality._design import Comparison, Job, Protocol, Study, System, finals, tries
from benchmarks.quality._next import chosen
from benchmarks.quality._record import Record, dev, has_diverged, is_sealed, mean_score, read
from benchmarks.quality._sharing import between_seeds, groups

LOSS = 1.0
"""Points below one model a task from which on a task is said to be worse off."""


def summary(studies: Iterable[Study]) -> dict[str, Any]:
    """Return every study's tables, as far as its runs are there."""
    return {"studies": {study.name: _study(study) for study in studies}}


def own_plans(studies: Iterable[Study]) -> dict[str, Any]:
    """Return of each study its own system's plan with seed 0, under the last protocol that has one."""
    found = {}
    for study in studies:
        for protocol in study.protocols:
            records = opened(study, study.system(study.ours), protocol)
            if records:
                found[study.name] = {"tasks": list(records[0]["scores"]["dev"]), "stages": records[0]["plan"]}
    return found


def opened(study: Study, system: System, protocol: Protocol) -> list[Record]:
    """Return the records that a system's row rests on, by seed."""
    choice = chosen(study, system)
    if choice is None:
        return []
    found = [read(job) for job in finals(study, system, choice) if job.protocol == protocol]
    return [record for record in found if record is not None and not is_sealed(record)]


def _study(study: Study) -> dict[str, Any]:
    protocols = {}
    for protocol in study.protocols:
        records = {system.name: opened(study, system, protocol) for system in study.systems}
        rows = [_row(study, system, records[system.name]) for system in study.systems if records[system.name]]
        protocols[protocol.name] = {
            "title": protocol.title,
            "rows": rows,
            "comparisons": _comparisons(study, records),
            "against_single": _against_single(study, records),
            "sharing": _sharing(study, records),
        }
    return {
        "title": study.title,
        "unit": study.unit,
        "groups": list(study.groups),
        "ours": study.ours,
        "shown": list(study.shown),
        "splits": list(study.splits),
        "protocols": protocols,
        "tries": [_tries(study, system) for system in study.systems if len(system.tries) > 1],
        "missing": sum(1 for job in _wanted(study) if read(job) is None),
        "made": sum(1 for job in _wanted(study) if read(job) is not None),
    }


def _wanted(study: Study) -> Iterable[Job]:
    """Yield every run of a study once; of a system whose settings are not chosen, what its tries are."""
    for system in study.systems:
        choice = chosen(study, system)
        jobs = {job.name: job for job in tries(study, system)}
        jobs |= {job.name: job for job in finals(study, system, choice or next(iter(system.tries)))}
        yield from jobs.values()


def _row(study: Study, system: System, records: list[Record]) -> dict[str, Any]:
    return {
        "system": system.name,
        "title": system.title,
        "part": system.part,
        "choice": records[0]["try"],
        "seeds": len(records),
        "wanted": max(len(records), 3 if system.claim else 1),
        "scores": {
            split: {
                group: _spread([mean_score(record, split, without) for record in records])
                for group, without in study.groups.items()
            }
            for split in ("dev", *study.splits)
        },
        "by_task": {split: _by_task(records, split) for split in study.splits},
        "parameters": records[0].get("parameters"),
        "costs": records[0].get("costs"),
        "cpu_seconds": round(float(np.mean([record["cpu_seconds"] for record in records]))),
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": round(float(np.mean(values)), 3),
        "deviation": round(float(np.std(values, ddof=1)), 3) if len(values) > 1 else None,
        "each": [round(value, 3) for value in values],
    }


def _by_task(records: list[Record], split: str) -> dict[str, float]:
    """Return each task's mean over seeds, in percent."""
    return {
        task: round(100 * float(np.mean([record["scores"][split][task] for record in records])), 2)
        for task in records[0]["scores"][split]
    }


def _comparisons(study: Study, records: Mapping[str, list[Record]]) -> list[dict[str, Any]]:
    return [
        _compared(study, comparison, records[comparison.better], records[comparison.worse])
        for comparison in study.comparisons
        if records[comparison.better] and records[comparison.worse]
    ]


def _compared(
    study: Study, comparison: Comparison, better: list[Record], worse: list[Record]
) -> dict[str, Any]:
    """Return the difference of two systems, task by task over the mean of their seeds.

    Tasks are what varies most, and the seeds are the same for both systems: the test is a paired t test over
    tasks, beside Wilcoxon's signed ranks, which assumes less.
    """
    group, without = next(iter(study.groups.items()))
    first, second = _by_task(better, comparison.split), _by_task(worse, comparison.split)
    tasks = [task for task in first if task not in without]
    differences = np.array([first[task] - second[task] for task in tasks])
    seeds = min(len(better), len(worse))
    few = len(tasks) < 5 or not differences.any()
    return {
        "better": study.system(comparison.better).title,
        "worse": study.system(comparison.worse).title,
        "split": comparison.split,
        "group": group,
        "difference": round(float(differences.mean()), 3),
        "by_seed": [
            round(mean_score(a, comparison.split, without) - mean_score(b, comparison.split, without), 3)
            for a, b in zip(better[:seeds], worse[:seeds], strict=True)
        ],
        "tasks_better": int((differences > 0).sum()),
        "tasks": len(tasks),
        "p_t": None if few else float(stats.ttest_1samp(differences, 0).pvalue),
        "p_wilcoxon": None if few else float(stats.wilcoxon(differences).pvalue),
    }


def _against_single(study: Study, records: Mapping[str, list[Record]]) -> dict[str, Any]:
    """Return of every system how many tasks are worse and better off than with a model of their own."""
    if not records.get(study.single):
        return {}
    found = {}
    for system in study.systems:
        if system.name == study.single or not records[system.name]:
            continue
        by_split = {}
        for split in study.splits:
            own, shared = _by_task(records[study.single], split), _by_task(records[system.name], split)
            gains = {task: round(shared[task] - own[task], 2) for task in own}
            by_split[split] = {
                "worse": sum(gain < -LOSS for gain in gains.values()),
                "better": sum(gain > LOSS for gain in gains.values()),
                "least": min(gains.items(), key=lambda item: item[1]),
                "most": max(gains.items(), key=lambda item: item[1]),
            }
        found[system.title] = by_split
    return found


def _sharing(study: Study, records: Mapping[str, list[Record]]) -> dict[str, Any]:
    found = {}
    for system in study.systems:
        plans = [record.get("plan", []) for record in records[system.name]]
        if {"cluster", "gated"} & {stage["kind"] for plan in plans for stage in plan}:
            tasks = list(records[system.name][0]["scores"]["dev"])
            found[system.name] = {
                "title": system.title,
                "stages": between_seeds(plans),
                "groups": groups(plans[0], tasks),
            }
    return found


def _tries(study: Study, system: System) -> dict[str, Any]:
    """Return what each of a system's tries scored on dev."""
    made = {job.choice: read(job) for job in tries(study, system)}
    known = {name: record for name, record in made.items() if record is not None}
    return {
        "title": system.title,
        "chosen": chosen(study, system),
        "dev": {name: None if has_diverged(each) else round(dev(each), 2) for name, each in known.items()},
    }
