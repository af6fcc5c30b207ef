"""Make what is missing of the study, and its tables and pictures; see the package."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.common import result_folder, write_result
from benchmarks.quality._design import Job
from benchmarks.quality._figures import draw
from benchmarks.quality._linear import linear
from benchmarks.quality._next import chosen, missing
from benchmarks.quality._record import Record, dev, diverged, read, write
from benchmarks.quality._tables import own_plans, summary
from benchmarks.quality._train import DivergedError, opened, train
from benchmarks.quality.cifar import CIFAR
from benchmarks.quality.digits import DIGITS
from benchmarks.quality.fdu import FDU
from benchmarks.quality.gum import GUM

STUDIES = {study.name: study for study in (DIGITS, FDU, CIFAR, GUM)}
console = Console()


@dataclass
class Work:
    """Runs jobs one after the other, or a few side by side.

    Attributes:
        files: Of each study, what the user gave.
        runs: Where the run folders go.
        threads: Of a run.
        only: Patterns of the names of jobs.
        until: When no more job begins, on the monotonic clock.
    """

    files: Mapping[str, tuple[str, ...]]
    runs: Path
    threads: int
    only: Sequence[str]
    until: float
    _begun: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    failed: list[str] = field(default_factory=list)

    def take(self) -> Job | None:
        """Return the next job, which nobody else gets; nothing when none is left, or it is too late."""
        with self._lock:
            if time.monotonic() > self.until:
                return None
            for job in missing([STUDIES[name] for name in self.files], self.only):
                # A try is made again, as it were, for its test scores: they are two jobs of one name.
                key = f"{job.name} {chosen(job.study, job.system)}"
                if key not in self._begun:
                    self._begun.add(key)
                    return job
        return None

    def run(self) -> None:
        """Make one job after the other."""
        while (job := self.take()) is not None:
            console.print(f"{time.strftime('%H:%M:%S')} {job.name}")
            try:
                record = self.record(job)
            except DivergedError as error:
                console.print(f"{job.name} diverged: {error}", style="red", markup=False)
                if chosen(job.study, job.system) is None:  # a try, which is one that is not chosen
                    write(job, diverged(job, str(error)))
                else:
                    self.failed.append(job.name)
                continue
            except RuntimeError as error:
                console.print(str(error), style="red", markup=False)
                self.failed.append(job.name)
                continue
            write(job, record)
            console.print(f"{time.strftime('%H:%M:%S')} {job.name}: dev {dev(record):.2f}")

    def record(self, job: Job) -> Record:
        """Return a job's record; of a run that was chosen, with its test scores."""
        files = self._prepared(job)
        if job.system.maker == "linear":
            return linear(job, files)
        record = read(job)
        if record is None or not (self.runs / job.name / "metrics.json").is_file():
            record = train(job, files, self.runs, self.threads)
        if chosen(job.study, job.system) == job.choice:
            record = opened(job, self.runs, record)
        return record

    def _prepared(self, job: Job) -> tuple[str, ...]:
        files = self.files[job.study.name]
        if job.protocol.prepare is None:
            return files
        made = [self.runs / job.study.name / f"{job.protocol.name}-{Path(file).name}" for file in files]
        with self._lock:
            for source, destination in zip(files, made, strict=True):
                if not destination.is_file():
                    destination.parent.mkdir(parents=True, exist_ok=True)
                    job.protocol.prepare(Path(source), destination)
        return tuple(map(str, made))


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", action="append", default=[], metavar="STUDY=FILE[,FILE]", help=f"of {', '.join(STUDIES)}"
    )
    parser.add_argument("--resume", action="store_true", help="go on: make only what is missing")
    parser.add_argument("--only", nargs="*", default=[], metavar="PATTERN", help="as fdu/text* or */*.honest")
    parser.add_argument("--list", action="store_true", help="say what is missing, and make nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"), help="where the run folders go")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each run; other numbers round otherwise")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no run begins")
    options = parser.parse_args()
    files = _files(parser, options.data)
    if options.list:
        for job in missing(STUDIES.values(), options.only):
            console.print(job.name, markup=False)
        return
    there = sorted((result_folder() / "quality").glob("*/*.json"))
    if there and not options.resume:
        parser.error(
            f"{len(there)} runs are there already: --resume makes what is missing; to make all of them "
            "again, set COTERIE_RESULTS to an empty folder"
        )
    work = Work(
        files,
        options.runs.resolve(),
        options.threads,
        options.only,
        time.monotonic() + 60 * options.minutes,
    )
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in [pool.submit(work.run) for _ in range(options.jobs)]:
            done.result()
    found = summary(STUDIES.values())
    console.print(f"written: {write_result('quality', found)}")
    draw(found, own_plans(STUDIES.values()))
    left = sum(1 for _ in missing(STUDIES.values()))
    console.print(f"{left} runs are missing" + (f"; failed: {', '.join(work.failed)}" if work.failed else ""))
    if work.failed:
        raise SystemExit(1)


def _files(parser: argparse.ArgumentParser, given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the files of each study that can be made: of what is built in, none."""
    found: dict[str, tuple[str, ...]] = {name: () for name, study in STUDIES.items() if not study.paths}
    for each in given:
        name, _, paths = each.partition("=")
        if name not in STUDIES:
            parser.error(f"--data {each}: no such study; there are {', '.join(STUDIES)}")
        files = tuple(paths.split(","))
        wanted = STUDIES[name].paths
        if len(files) != len(wanted):
            parser.error(f"--data {each}: {name} takes {len(wanted)} files, for {', '.join(wanted)}")
        for file in files:
            if not Path(file).is_file():
                parser.error(f"--data {each}: there is no file {file}")
        found[name] = tuple(str(Path(file).resolve()) for file in files)
    return found


if __name__ == "__main__":
    main()
