"""``python -m tests.machine``: see ``tests/machine/play``."""

import argparse
import re
import sys
import time
from collections import Counter

from tests.machine import oracle
from tests.machine.play import Failure, play, shortened, steps_of, tell


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.machine", description="Tell histories, and judge them by the laws."
    )
    parser.add_argument("--seed", type=int, help="tell this history alone, and say what happens in it")
    parser.add_argument("--keep", help="only these steps of it, as a failure names them")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first history")
    parser.add_argument("--histories", type=int, default=300)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--count", action="store_true", help="tell all of them, and count the laws that are broken")
    parser.add_argument("--ignore", default="", help="laws that are not judged, as L7,L10,feed")
    options = parser.parse_args()
    oracle.IGNORED.update(filter(None, options.ignore.split(",")))
    if options.seed is not None:
        _tell_one(options.seed, options.steps, options.keep)
        return
    seeds, begun = range(options.first, options.first + options.histories), time.monotonic()
    if options.count:
        _count(list(seeds), options.steps)
        return
    failure, nights = tell(seeds, options.steps)
    minutes = (time.monotonic() - begun) / 60
    print(f"{nights} nights, {nights / minutes:.0f} a minute")
    if failure is not None:
        print(failure)
    sys.exit(failure is not None)


def _tell_one(seed: int, number: int, keep: str | None) -> None:
    steps = list(enumerate(steps_of(seed, number)))
    if keep is not None:
        kept = {int(each) for each in keep.split(",") if each.isdecimal()}
        steps = [(index, step) for index, step in steps if index in kept]
    error, log, _ = play(seed, steps, says=True)
    if error is not None:
        failure = Failure(seed, number, tuple(index for index, _ in steps), error, log)
        print(shortened(failure) if keep is None else failure)
    sys.exit(error is not None)


def _count(seeds: list[int], steps: int) -> None:
    """Each law that is broken, how often, and where first."""
    broken, first, nights, begun = Counter[str](), dict[str, str](), 0, time.monotonic()
    for seed in seeds:
        failure, count = tell([seed], steps, shortens=False)
        nights += count
        if failure is not None:
            law = failure.law.partition("\n")[0][:150]
            kind = re.sub(r"'[^']*'|[0-9a-f-]{36}|[0-9]+", "…", law[4:])[:40]
            broken[kind] += 1
            first.setdefault(kind, f"--seed {seed}: {law}")
    for kind, times in broken.most_common():
        print(f"{times:5}  {first[kind]}")
    speed = nights / (time.monotonic() - begun) * 60
    print(f"{len(seeds)} histories, {sum(broken.values())} broken, {speed:.0f} nights a minute")
