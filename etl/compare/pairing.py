"""Which calls of baseline and candidate are compared: those of the same scenario, or of the same row of data of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.compare.statistics import Numbers
from etl.model.wording import counted

SCENARIO_COLUMNS = ["scenario_id", "scenario_name", "scenario_columns"]
_LEAST_KEPT = 0.9
NONE = -1
"""The number of the scenario of a call that has none."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """How many scenarios, or rows of scenarios, both sides have, and in words which calls are not compared.

    ``names`` are those of all scenarios by their number. Without scenarios, or where these are not wanted, there are none.
    """

    names: Sequence[str] = ()
    common: int = 0
    are_rows: bool = False
    left_out: Sequence[str] = ()

    @property
    def is_paired(self) -> bool:
        """Whether scenarios are compared, and not all calls together."""
        return bool(self.names)

    @property
    def text(self) -> str:
        """``scenario by scenario (25 that both have)``."""
        if not self.is_paired:
            return "all calls together, without regard to scenarios"
        what = "row by row of the scenarios" if self.are_rows else "scenario by scenario"
        return f"{what} ({self.common:,} that both have)"


def paired(sides: Sequence[pa.Table], *, is_wanted: bool = True) -> tuple[Pairing, list[Numbers]]:
    """How baseline and candidate are paired, whose calls have ``SCENARIO_COLUMNS``; and the number of each call's scenario, or -1.

    By rows, where these leave out few more calls than scenarios do: a row's values may be edited between two executions.
    """
    if not is_wanted or any(calls["scenario_id"].null_count == len(calls) for calls in sides):
        return Pairing(), [np.zeros(len(calls), dtype=np.int64) for calls in sides]
    chosen, is_finer = _numbers(sides, are_rows=False), False
    if len(sides) > 1:  # alone, a side would have all of its rows in common with itself
        rows = _numbers(sides, are_rows=True)
        kept, of_rows = (sum(int(np.isin(each, _common(by)).sum()) for each in by) for by in (chosen, rows))
        if of_rows and of_rows >= _LEAST_KEPT * kept:
            is_finer = len(np.unique(np.concatenate(rows))) > len(np.unique(np.concatenate(chosen)))
            chosen = rows
    common = _common(chosen)
    names = pa.chunked_array([chunk for calls in sides for chunk in calls["scenario_name"].chunks], pa.string())
    firsts = np.unique(np.concatenate(chosen), return_index=True)
    by_number = {int(number): names[int(place)].as_py() for number, place in zip(*firsts, strict=True)}
    return (
        Pairing(
            names=[by_number.get(number) or "unnamed" for number in range(max(by_number) + 1)],
            common=len(common),
            are_rows=is_finer,
            left_out=[
                text
                for name, each in zip(("baseline", "candidate"), chosen, strict=False)
                for text in _left_out(name, each, common, "row of a scenario" if is_finer else "scenario")
            ]
            + ([] if len(common) else ["no scenario in common: --unpaired compares all calls together"]),
        ),
        chosen,
    )


def _numbers(sides: Sequence[pa.Table], *, are_rows: bool) -> list[Numbers]:
    keys = []
    for calls in sides:
        key = calls["scenario_id"]
        if are_rows:
            key = pc.binary_join_element_wise(key, pc.fill_null(calls["scenario_columns"], ""), "\n")
        keys.extend(key.chunks)
    encoded = pa.chunked_array(keys, pa.string()).combine_chunks().dictionary_encode()
    numbers = pc.fill_null(encoded.indices, NONE).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.split(numbers, np.cumsum([len(calls) for calls in sides[:-1]]))


def _common(sides: Sequence[Numbers]) -> Numbers:
    return reduce(np.intersect1d, (numbers[numbers != NONE] for numbers in sides))


def _left_out(side: str, numbers: Numbers, common: Numbers, what: str) -> list[str]:
    alone = numbers[(numbers != NONE) & ~np.isin(numbers, common)]
    texts = []
    if len(alone):
        texts.append(
            f"{counted(len(np.unique(alone)), what)} only in the {side}: {counted(len(alone), 'call')} not compared"
        )
    if none := int((numbers == NONE).sum()):
        texts.append(f"{side}: {counted(none, 'call')} without a scenario: not compared")
    return texts
