"""Which export runs ``status`` tells of, and in which order. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isfinite
from typing import Any

from etl.inspect.status_files import COLUMNS
from etl.load.attempt import Attempt
from etl.load.last_run import LastRun


def is_of_a_run(row: Mapping[str, Any]) -> bool:
    """Whether the exporter may have written this row of ``runs``."""
    return all(row[name] is not None for name in COLUMNS["runs"] if name != "message") and isfinite(row["seconds"])


def newest(runs: Sequence[Mapping[str, Any]], attempt: Attempt | None, last_run: LastRun) -> list[Mapping[str, Any]]:
    """The run that came last, whatever the clocks said: each run replaces the note of an attempt, and the record of the last run.

    A run at work, or one that was killed, has replaced the note alone.
    """
    for run_id in (attempt and attempt.export_run_id, last_run.export_run_id):
        if found := [run for run in runs if run["export_run_id"] == run_id]:
            return found
    return []


def order(run: Mapping[str, Any]) -> tuple[str, datetime]:
    """Their ids begin with this machine's time, in whole seconds; ``started_at`` is by the source's clock."""
    return run["export_run_id"].partition("-")[0], run["started_at"]


def row_of(last_run: LastRun) -> list[dict[str, Any]]:
    """The row of ``runs`` that the last run could not write, none for an empty record."""
    if last_run.export_run_id is None or last_run.started_at is None or last_run.finished_at is None:
        return []
    names = ("export_run_id", "started_at", "finished_at", "outcome", "exit_code", "seconds", "requests")
    rows = {name: last_run.rows.get(name, 0) for name in ("executions", "calls", "evals")}
    return [{name: getattr(last_run, name) for name in names} | rows | {"message": "\n".join(last_run.problems)}]


def still_open(last_run: LastRun, problems: Sequence[str]) -> tuple[str, ...]:
    """What a run before could not find out of the source, and no run since, but for what is one of the last one's ``problems``."""
    of_list = [each for each in last_run.undiscovered if each not in problems]
    then = "if another run does not help, one with --accept-deletions does"
    left = [f"run_test={key}: executions left there could not be looked up; {then}" for key in last_run.ask_again]
    told = {each.partition(":")[0] for each in problems}
    return (*of_list, *(each for each in left if each.partition(":")[0] not in told))
