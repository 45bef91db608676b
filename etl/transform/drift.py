"""Tell whether the API still answers in the form that the schema declares. Pure.

A value is lost if its column is null, or wrong, although something else shows the value: the execution's detail,
another field of the same answer, or earlier rows. The API writes null for a value that it does not have, so neither a
null nor a field that is gone with nothing in its place is a loss.

One call, or one execution, may be odd for its own reasons. So ``Losses`` are what one execution shows, and ``Answers``
put those of a run test together: an execution that has a column shows that the API's form is the declared one, unless
many others lack it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from etl.model import schema
from etl.model.values import MISFIT, Coercer, coercer_of, parsed, value_at
from etl.model.wording import counted, first_few
from etl.transform.rows import Path

_FREE = {("latency", "system_metrics"), ("latency", "customer_latency_metrics")}
_FREE |= {("cost", "breakdown"), ("cost", "customer_cost_breakdown")}
"""Where a call's metrics have an object of the voice provider, which may hold anything."""
_TABLES = (schema.EXECUTIONS, schema.CALLS, schema.EVALS)
"""The tables whose rows are made of payloads."""
_NAMES = {f"{table.name}.{name}" for table in _TABLES for name in table.names}
_OPTIONAL = {"chat_metrics", "detail", "name", "output_type", "reason", "status"}
"""Fields that an answer may leave out, or of which it may leave out any part."""
_SOMETIMES_SHOWN = ("agent_definition_used_", "simulator_agent_", *schema.OF_VOICE_LIST)
"""How those fields of the detail begin that it has only of calls with an agent, or with the list of voice calls."""
ALWAYS_SHOWN = {
    path[1]: f"{schema.CALLS.name}.{column.name}"
    for column in schema.CALLS.columns
    for path in column.paths
    if path[0] == "detail" and not path[1].startswith(_SOMETIMES_SHOWN)
}
"""Fields that only the detail has, and has of every call, be they null; with their columns."""
_MANY_CALLS = 20
"""So many calls of two executions are no accident."""


@dataclass(frozen=True, slots=True)
class Loss:
    """That a column lost its values in one execution."""

    calls: int
    """In how many calls."""
    text: str
    """What became of it, and where the values are now: "is null (…)"."""
    is_filled: bool = False
    """The rows have the values all the same, from the execution's detail."""
    is_absent: bool = False
    """Nothing else in the answers shows the values. That is a loss only if earlier rows have some."""
    is_moved: bool = False
    """The values are in another place, or they are other ones: a loss also beside calls that have the column."""


@dataclass(frozen=True, slots=True)
class Losses:
    """What the answers about one execution show of their form. Columns are named with their table: ``calls.status``."""

    lost: Mapping[str, Loss] = field(default_factory=dict)
    """The columns that lost their values: in every call that had any; or they are moved, in at least one call."""
    has: frozenset[str] = frozenset()
    """The columns that have a value where it is declared, in more calls than lost it."""


NO_LOSSES = Losses()


class Answer(NamedTuple):
    """One row, and what it was made of."""

    payload: Callable[[], Mapping[str, Any]] | None
    """Gives the API's answer; None if only the row is at hand: it does not tell a null from a field that is gone."""
    row: Sequence[Any]
    """The row of this payload alone, in the order of the table's columns."""
    shown: Mapping[int, Any] = {}
    """By place in the row, what the execution's lists show."""
    is_compared: bool = False
    """What is ``shown`` is as new as the payload, so that of two different values one is wrong."""


def find_losses(table: schema.Table, answers: Sequence[Answer]) -> Losses:
    """What these answers, which are all about one execution, show of their form."""
    at = _EXTRA[table.name]
    unknown = [unknown_fields(answer.row[at]) for answer in answers]
    has_unknown = any(unknown)
    by_index = [*zip(*(answer.row for answer in answers), strict=True)]
    differing = {
        index
        for answer in answers
        for index, value in answer.shown.items()
        if value is not None and value != answer.row[index]
    }
    lost: dict[str, Loss] = {}
    has = set[str]()
    for column in _COLUMNS[table.name]:
        at = column.indexes[0]
        nulls = min(by_index[index].count(None) for index in column.indexes) if answers else 0
        if at not in differing and not (nulls and has_unknown):  # most columns: this need not cost much
            if nulls < len(answers):
                has.add(column.name)
            continue
        # A field that stands beside a value in one call has not replaced it in another.
        pairs = [*zip(answers, unknown, strict=True)]
        beside = {leaf for answer, fields in pairs if column.value(answer.row) is not None for leaf in fields}
        losses = [(answer, column.loss(answer, set(fields) - beside)) for answer, fields in pairs]
        values = sum(column.value(answer.row) is not None for answer, loss in losses if not loss)
        if found := [loss for _, loss in losses if loss and (loss.is_moved or not values)]:
            is_filled = all(loss.is_filled for loss in found)
            lost[column.name] = replace(found[0], calls=len(found), is_filled=is_filled)
        if values > len(found):
            has.add(column.name)
    return Losses(lost, frozenset(has))


def unknown_fields(extra: str | None) -> list[Path]:
    """The sorted paths in ``extra`` of unknown fields, and of misfits, in objects whose form the schema declares."""
    return sorted(path for path in _leaves(parsed(extra)) if path[:2] not in _FREE) if extra else []


@dataclass(slots=True)
class Answers:
    """What the answers about one run test have shown in one run, as far as it has come."""

    told: str = ""
    """What the last run said of columns that lost their values, here or at least in one execution; else empty."""
    was_alarm: bool = False
    """Whether that was said of the whole run test."""
    _lost: dict[str, dict[str, Loss]] = field(default_factory=dict)
    """By column and execution, its loss."""
    _has: set[str] = field(default_factory=set)
    """The columns that an execution has."""
    _new: set[str] = field(default_factory=set)
    """The executions whose calls are new in this run."""

    def note(self, execution_id: str, losses: Losses, *, is_new: bool, has_values: Callable[[str], bool]) -> None:
        """Add what an execution, or a piece of one, shows; ``has_values`` tells whether stored rows have a column."""
        self._has |= losses.has
        self._new |= {execution_id} if is_new else set()
        for column, loss in losses.lost.items():
            if not loss.is_absent or self._is_told(column) or has_values(column):
                of_column = self._lost.setdefault(column, {})
                before = of_column[execution_id].calls if execution_id in of_column else 0
                of_column[execution_id] = replace(loss, calls=before + loss.calls)

    def holds(self, execution_id: str) -> bool:
        """Whether the execution is not final yet: it lost values, and none says that this is no matter of the API.

        In the run that brings its calls, no other can say so: the next ones may lack the values, too.
        """
        found = self._lost if execution_id in self._new else self._odd()
        return any(execution_id in losses and not losses[execution_id].is_filled for losses in found.values())

    @property
    def is_back(self) -> bool:
        """Whether some execution has each column that lost its values in the last run."""
        return self._has >= self._told_columns

    def text(self, *, is_drift: bool, is_filled: bool = False) -> str:
        """Which columns lost their values, in one line; empty if none did.

        With ``is_drift`` those that lost them in the whole run test, else all others. With ``is_filled`` those whose
        values come from the executions' details, else all others.
        """
        found = {
            column: losses
            for column, losses in sorted(self._odd().items())
            if self._is_drift(column, losses) is is_drift
            and all(loss.is_filled for loss in losses.values()) is is_filled
        }
        if not found:
            return ""
        texts = [f"{column} {next(iter(losses.values())).text}" for column, losses in found.items()]
        calls: dict[str, int] = {}
        for losses in found.values():
            calls |= {key: max(loss.calls, calls.get(key, 0)) for key, loss in losses.items()}
        number = f"{counted(sum(calls.values()), 'call')} of {counted(len(calls), 'execution')}"
        return f"in {number}: {first_few(texts, shown=3)}"

    def _odd(self) -> dict[str, dict[str, Loss]]:
        """The losses in columns that no execution has, and those of moved values that are drift all the same.

        Executions whose rows have the values from their details say nothing of what is missing: they count only where
        it is missing from none.
        """
        odd = {}
        for column, losses in self._lost.items():
            if column not in self._has:
                odd[column] = {key: loss for key, loss in losses.items() if not loss.is_filled} or losses
            elif self._is_drift(column, moved := {key: loss for key, loss in losses.items() if loss.is_moved}):
                odd[column] = moved
        return odd

    def _is_drift(self, column: str, losses: Mapping[str, Loss]) -> bool:
        """Whether the column lost its values in many calls of several executions, in two nights, or still."""
        is_much = len(losses) > 1 and sum(loss.calls for loss in losses.values()) >= _MANY_CALLS
        if column in self._has:
            return is_much or (self.was_alarm and bool(losses) and self._is_told(column))
        is_again = self.was_alarm or len(losses) > 1 or not self._new.isdisjoint(losses)
        return is_much or (is_again and self._is_told(column))

    def _is_told(self, column: str) -> bool:
        return column in self._told_columns

    @property
    def _told_columns(self) -> set[str]:
        """The columns that ``told`` names; it also names fields, as paths of an answer."""
        return _NAMES.intersection(re.findall(r"[\w.]+", self.told))


class _Judged(NamedTuple):
    """A column, or several that share their paths, by the first of which they are called."""

    name: str
    indexes: tuple[int, ...]
    paths: tuple[Path, ...]
    coercers: tuple[Coercer, ...]
    is_json: bool

    def value(self, row: Sequence[Any]) -> Any:
        """Its value in the row."""
        return next((row[index] for index in self.indexes if row[index] is not None), None)

    def loss(self, answer: Answer, unknown: Iterable[Path]) -> Loss | None:
        """Whether the value is missing, and something else shows it; ``unknown`` are fields of the answer."""
        value, shown = self.value(answer.row), answer.shown.get(self.indexes[0])
        if shown is not None and (shown := self.coercers[0](shown)) is not MISFIT:
            if value is None:
                return Loss(1, "comes from the executions' details alone", is_filled=True)
            is_other = answer.is_compared and value != shown and not self.is_json
            return Loss(1, "differs from the executions' details", is_moved=True) if is_other else None
        is_null = value is None and shown is None and self.indexes[0] in answer.shown
        if value is not None or is_null or not unknown or self._is_there(answer):
            return None
        paths = [(path, _has_place(answer, path)) for path in self.paths]
        for leaf in sorted(unknown):
            if any(_replaces(leaf, path, is_beside_alone=known) for path, known in paths):
                is_moved = not any(leaf[: len(path)] == path for path in self.paths)
                return Loss(1, f"is null (extra has {'.'.join(leaf)})", is_moved=is_moved)
        return None

    def _is_there(self, answer: Answer) -> bool:
        """Whether the payload has a value that fits, or a null, where it is declared."""
        if answer.payload is None:
            return False
        payload = answer.payload()
        return any(_has(payload, path, coercer) for path in self.paths for coercer in self.coercers)


def _has(payload: Any, path: Path, coercer: Coercer) -> bool:
    """Whether the payload has, at the path, a value that fits, or a null there or above."""
    for step in path:
        if not isinstance(payload, Mapping) or step not in payload:
            return False
        payload = payload[step]
        if payload is None:
            return True
    return coercer(payload) is not MISFIT


def _has_place(answer: Answer, path: Path) -> bool:
    """Whether the answer has the object in which a field is declared, or may leave out the field.

    False if only the row is at hand, and of a field that no object holds.
    """
    if len(path) == 1:
        return path[0] in _OPTIONAL
    return answer.payload is not None and isinstance(value_at(answer.payload(), path[:-1]), Mapping)


def _replaces(leaf: Path, path: Path, *, is_beside_alone: bool) -> bool:
    """Whether a field that has no column may have the value of this path: it has its name, or stands beside or in it.

    While the field's own object is there, only what stands in it counts (``is_beside_alone``). A value that only does
    not fit its own column stands for no other; and beside what may be missing anyway, a new field says nothing.
    """
    if path[:2] in _FREE:
        return False
    is_there, is_in_it = leaf[:-1] == path[:-1], leaf[: len(path)] == path
    is_beside = is_there and path[0] not in _OPTIONAL and leaf not in _DECLARED
    return is_in_it or is_beside or (_plain(leaf[-1]) == _plain(path[-1]) and (is_there or not is_beside_alone))


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _leaves(fields: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    """The paths of all values that are neither objects nor null."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*at, name))
        elif value is not None:
            yield (*at, name)


def _columns_of(table: schema.Table) -> list[_Judged]:
    """The columns of the table that have a path, those that share their paths as one."""
    by_paths: dict[tuple[Path, ...], list[int]] = {}
    for index, column in enumerate(table.columns):
        if column.paths:
            by_paths.setdefault(column.paths, []).append(index)
    return [
        _Judged(
            f"{table.name}.{table.names[indexes[0]]}",
            tuple(indexes),
            paths,
            tuple(coercer_of(table.columns[index]) for index in indexes),
            table.columns[indexes[0]].is_json,
        )
        for paths, indexes in by_paths.items()
    ]


_COLUMNS = {table.name: _columns_of(table) for table in _TABLES}
_DECLARED = {path for columns in _COLUMNS.values() for column in columns for path in column.paths}
_EXTRA = {table.name: table.names.index("extra") for table in _TABLES}
