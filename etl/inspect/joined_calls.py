"""Calls with the columns of their execution and their evals, one row per call.

Every column is looked up by id for the rows of ``calls``. So nothing can drop a call or double it, as a join could.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.dataset.layout import Scope
from etl.errors import ConfigurationError
from etl.files.interface import Files
from etl.inspect import read_tables
from etl.model import schema
from etl.model.arrow import is_of, where
from etl.model.locations import Options
from etl.model.values import shared_values
from etl.transform.frames import to_pandas

_SHARED = {"execution_id", "run_test_name", "started_at"}  # calls has these itself, the last as execution_started_at
_SHARED |= {"judged_by"}  # a long text: each call of an execution would repeat it
EXECUTION_COLUMNS = {f"execution_{name}": name for name in schema.EXECUTIONS.names if name not in _SHARED}
"""The names in ``executions`` of the columns that are added to a call, by their names there."""
CALL_COLUMNS = [*schema.CALLS.names, *(column.name for column in schema.CALLS.added_columns)]
"""A call's own columns."""
_OUTPUTS = {"passed": "output_passed", "score": "output_score", "text": "output_text"}
"""The columns of ``evals`` that hold an output, by its kind, the last word of ``eval_accuracy_score``."""
_KIND_OF_TYPE = {"Pass/Fail": "passed", "score": "score"}
"""The kind of output by an eval's ``output_type``; any other type is a text."""
_EVALS_READ = ["execution_id", *schema.EVALS.key, "eval_name", "output_type", *_OUTPUTS.values(), "output_json"]
"""The columns of ``evals`` that are needed."""


def read_calls(  # noqa: PLR0913 each narrows what is read, and is given by name
    path: str | os.PathLike[str],
    *,
    run_tests: str | Iterable[str] | None = None,
    since: str | date | None = None,
    until: str | date | None = None,
    columns: str | Iterable[str] | None = None,
    evals: Literal["wide"] | None = None,
    changed_since: str | date | None = None,
    deleted: read_tables.Deleted = "exclude",
    options: Options | None = None,
) -> pd.DataFrame:
    """One row per call, with the columns of its execution and its evals.

    The rows are those of ``read_table(path, "calls", …)``. The columns of ``calls`` come first, then the other columns
    of ``executions`` as ``execution_status``, ``execution_completed_at`` and so on; they are null if the execution has
    no row. Group by ``scenario_name``, ``agent_definition_used_name`` or ``provider``. ``overall_score`` is what the
    platform shows as CSAT.

    With ``evals="wide"``, each eval adds a column such as ``eval_task_completion_passed``: ``eval_``, its name, and
    ``_passed`` (bool), ``_score`` (double) or ``_text`` (text, or a list as JSON). An eval with several kinds of output
    has a column for each kind; one without output has that of its output type, or all three if the type is unknown. A
    call is null if it was not judged, or if the eval failed. Evals with the same name share columns. But if one call
    has two of them, or if two names differ only in case and punctuation, each eval has its own columns, with the first
    characters of its id after the name.

    Args:
        path: As in ``read_table``.
        run_tests: As in ``read_table``.
        since: As in ``read_table``.
        until: As in ``read_table``.
        columns: Only these columns, in this order; all by default. Those of evals are added.
        evals: ``"wide"``, or None for no evals.
        changed_since: Only calls of executions in which anything changed after this moment, and all calls of these.
            They replace all that you have for the executions that ``read_table(path, "executions", changed_since=…)``
            gives.
        deleted: ``"include"`` adds the calls (with a ``deleted_at``) and eval outputs that the source no longer has.
        options: As in ``read_table``.

    Raises:
        ConfigurationError: an unknown column or run test, or an invalid day, moment, ``evals`` or ``deleted``.
        DestinationError: there is no dataset, or one of its files cannot be read.
    """
    if evals not in (None, "wide"):
        raise ConfigurationError(f'evals must be "wide" or None, got {evals!r}')
    names = read_tables.chosen_columns(columns, [*CALL_COLUMNS, *EXECUTION_COLUMNS], "calls")
    files = read_tables.open_dataset(path, options)
    scope = read_tables.find_scope(files, schema.CALLS, run_tests, since, until)
    after = read_tables.moment("changed_since", changed_since)
    is_living = not read_tables.includes_deleted(deleted)
    needed = dict.fromkeys(["call_execution_id", "execution_id", *(name for name in names if name in CALL_COLUMNS)])
    calls = read_tables.read_rows(files, schema.CALLS, scope, list(needed), is_living=is_living)
    added = {name: EXECUTION_COLUMNS[name] for name in names if name in EXECUTION_COLUMNS}
    executions = schema.EXECUTIONS.no_rows
    if added or after:
        stored = dict.fromkeys(["execution_id", read_tables.EXPORTED_AT, *added.values()])
        executions = read_tables.read_rows(files, schema.EXECUTIONS, scope, list(stored), is_of_days=False)
    if after:
        is_older = pc.less_equal(executions[read_tables.EXPORTED_AT], pa.scalar(after, schema.TIMESTAMP))
        calls = calls.filter(pc.invert(is_of(calls, executions.filter(is_older)["execution_id"].to_pylist())))
    indices = _indices(calls["execution_id"], executions["execution_id"])
    joined = {name: executions[added[name]].take(indices) if name in added else calls[name] for name in names}
    if evals:
        joined |= _eval_columns(files, scope, calls, is_living=is_living)
    return to_pandas(pa.table(joined))


def _eval_columns(files: Files, scope: Scope, calls: pa.Table, *, is_living: bool) -> dict[str, pa.ChunkedArray]:
    """By name, the columns of the evals of these calls, with one value per call."""
    rows = read_tables.read_rows(files, schema.EVALS, scope, _EVALS_READ, is_living=is_living)
    rows = where(rows, pc.is_in(rows["call_execution_id"], value_set=calls["call_execution_id"].combine_chunks()))
    # A row has one output: its text counts only if it has neither a verdict nor a score.
    is_text = pc.and_(pc.is_null(rows["output_passed"]), pc.is_null(rows["output_score"]))
    texts = pc.if_else(is_text, pc.coalesce(rows["output_text"], rows["output_json"]), pa.scalar(None, schema.STRING))
    rows = rows.set_column(rows.column_names.index("output_text"), "output_text", texts)
    labels = pa.array(_labels(rows), pa.string())
    columns = {}
    for label in sorted(labels.unique().to_pylist()):
        eval_rows = rows.filter(pc.equal(labels, label))
        indices = _indices(calls["call_execution_id"], eval_rows["call_execution_id"])
        for kind in _kinds(eval_rows):
            columns[f"eval_{label}_{kind}"] = eval_rows[_OUTPUTS[kind]].take(indices)
    return columns


def _indices(ids: pa.ChunkedArray, among: pa.ChunkedArray) -> pa.ChunkedArray:
    """For each id, the index of its first row ``among`` others; null if it has none."""
    return pc.index_in(ids, value_set=among.combine_chunks(), skip_nulls=True)


def _kinds(rows: pa.Table) -> list[str]:
    """The kinds of the outputs of one eval; without outputs, that of its output type; without a type, all kinds."""
    kinds = {kind for kind, name in _OUTPUTS.items() if rows[name].null_count < len(rows)}
    if not kinds:
        kinds = {_KIND_OF_TYPE.get(type_, "text") for type_ in rows["output_type"].drop_null().to_pylist()}
    return [kind for kind in _OUTPUTS if kind in kinds or not kinds]


def _labels(rows: pa.Table) -> list[str]:
    """What the eval of each row is called in column names: its slug, and part of its id if it is ambiguous.

    It is if one call has two evals of the same name, or if two names have the same slug.
    """
    judged = pa.table({"name": eval_names(rows), "config": rows["eval_config_id"], "call": rows["call_execution_id"]})
    evals = [*zip(*judged.group_by(["name", "config"]).aggregate([]).to_pydict().values(), strict=True)]
    slugs = {name: slug_of(name) for name, _ in evals}
    ambiguous = {slug for slug, count in Counter(slugs.values()).items() if count > 1}
    for name in [name for name, count in Counter(name for name, _ in evals).items() if count > 1]:
        calls = judged.filter(pc.equal(judged["name"], name)).group_by("call").aggregate([("config", "count_distinct")])
        if pc.max(calls["config_count_distinct"]).as_py() > 1:
            ambiguous.add(slugs[name])
    labels: dict[tuple[str, str], str] = {}
    # Evals that need no id come first, so that no other one takes their label.
    for name, config_id in sorted(evals, key=lambda name_and_id: (slugs[name_and_id[0]] in ambiguous, name_and_id)):
        label = slug = slugs[name]
        if slug in ambiguous:
            label = f"{slug}_{slug_of(config_id[:8])}"
            if label in labels.values():
                label = f"{slug}_{slug_of(config_id)}"
        labels[name, config_id] = label
    return [labels[name_and_id] for name_and_id in zip(*map(shared_values, judged.columns[:2]), strict=True)]


def eval_names(rows: pa.Table) -> pa.ChunkedArray:
    """The name of each row's eval; the id of its configuration if it has no name."""
    is_unnamed = pc.fill_null(pc.equal(rows["eval_name"], ""), fill_value=True)
    return pc.if_else(is_unnamed, rows["eval_config_id"], rows["eval_name"])


def slug_of(text: str) -> str:
    """The letters and digits of any script, in lower case, with one underscore for all that is between them."""
    return re.sub(r"[\W_]+", "_", text.casefold()).strip("_") or "eval"
