"""Which calls of baseline and candidate are compared: those of the same scenario, or of the same row of its data.

Owns the numbers by which ``estimate`` matches both sides, and the words for what is not compared. Pure.
"""

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
"""Rows are compared if they leave this share of the calls that would be compared by scenario."""
NONE = -1
"""The number of the scenario of a call that has none."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """How baseline and candidate are matched; by default all calls together, without regard to scenarios."""

    names: Sequence[str] = ()
    """The names of all scenarios, or of the scenarios of all rows, by their number."""
    common: int = 0
    """How many scenarios, or rows, both sides have."""
    are_rows: bool = False
    """Whether rows of scenarios are compared, and these are finer than scenarios."""
    left_out: Sequence[str] = ()
    """In words, which calls are not compared."""

    @property
    def is_paired(self) -> bool:
        """Whether scenarios are compared, and not all calls together."""
        return bool(self.names)

    @property
    def text(self) -> str:
        """``scenario by scenario (25 that both sides have)``."""
        if not self.is_paired:
            return "all calls together, without regard to scenarios"
        what = "scenario row by scenario row" if self.are_rows else "scenario by scenario"
        return f"{what} ({self.common:,} that both sides have)"


def paired(sides: Sequence[pa.Table], *, is_wanted: bool = True) -> tuple[Pairing, list[Numbers]]:
    """How baseline and candidate are matched; and for each side, the number of each call's scenario or row.

    The calls have ``SCENARIO_COLUMNS``. A call without a scenario has the number ``NONE``. If no pairing is wanted, or
    a side has no scenarios at all, all calls have the number 0. A single side is numbered by scenario.
    """
    if not is_wanted or any(calls["scenario_id"].null_count == len(calls) for calls in sides):
        return Pairing(), [np.zeros(len(calls), dtype=np.int64) for calls in sides]
    numbers, are_rows = _rows_or_scenarios(sides)
    common = _common(numbers)
    left_out = _left_out(numbers, common, "row of a scenario" if are_rows else "scenario")
    return Pairing(_names(sides, numbers), len(common), are_rows, left_out), numbers


def _rows_or_scenarios(sides: Sequence[pa.Table]) -> tuple[list[Numbers], bool]:
    """The number of each call's row where rows can be compared, else of its scenario; and whether rows are finer.

    Rows can be compared where they leave out few more calls than scenarios do: a row's values may be edited between two
    executions.
    """
    scenarios = _numbers(sides, are_rows=False)
    if len(sides) == 1:  # alone, a side would have all of its rows in common with itself
        return scenarios, False
    rows = _numbers(sides, are_rows=True)
    by_scenario, by_row = _calls_in_common(scenarios), _calls_in_common(rows)
    if not by_row or by_row < _LEAST_KEPT * by_scenario:
        return scenarios, False
    return rows, len(np.unique(np.concatenate(rows))) > len(np.unique(np.concatenate(scenarios)))


def _numbers(sides: Sequence[pa.Table], *, are_rows: bool) -> list[Numbers]:
    """For each side, the number of each call's scenario or row: from 0 without a gap, and the same on all sides."""
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
    """The numbers that all sides have."""
    return reduce(np.intersect1d, (numbers[numbers != NONE] for numbers in sides))


def _calls_in_common(sides: Sequence[Numbers]) -> int:
    """How many calls of all sides would be compared by these numbers."""
    common = _common(sides)
    return sum(int(np.isin(numbers, common).sum()) for numbers in sides)


def _names(sides: Sequence[pa.Table], numbers: Sequence[Numbers]) -> list[str]:
    """The name of each number: that of the first call which has it."""
    names = pa.chunked_array([chunk for calls in sides for chunk in calls["scenario_name"].chunks], pa.string())
    present, places = np.unique(np.concatenate(numbers), return_index=True)
    return [names[int(place)].as_py() or "unnamed" for place in places[present != NONE]]


def _left_out(sides: Sequence[Numbers], common: Numbers, what: str) -> list[str]:
    """Which calls are not compared, and what to do where none is; ``what`` is a scenario or a row of one."""
    texts = []
    for side, numbers in zip(("baseline", "candidate"), sides, strict=False):  # a side may be alone
        alone = numbers[(numbers != NONE) & ~np.isin(numbers, common)]
        if len(alone):
            only = f"{counted(len(np.unique(alone)), what)} found only in the {side}"
            texts.append(f"the comparison leaves out {counted(len(alone), 'call')} of {only}")
        if unknown := int((numbers == NONE).sum()):
            texts.append(f"the comparison leaves out {counted(unknown, 'call')} of the {side} without a scenario")
    if not len(common):
        texts.append("the two sides have no scenario in common. To compare all calls together, add --unpaired")
    return texts
