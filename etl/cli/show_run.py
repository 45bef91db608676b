"""What ``run`` prints at its end: the summary, and how to open the dataset. Decides nothing."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from etl.cli.console import add_name_column, by_purpose, duration, print_line, printable, stdout_console
from etl.cli.show_load import loaded
from etl.extract.plan import Reason
from etl.model import schema
from etl.model.locations import Options, scheme_of
from etl.model.wording import counted
from etl.pipeline.run_test_summary import RunTestSummary
from etl.pipeline.summary import Summary

FIELDS = {
    "export_run_id": "id of the run, as in the column `export_run_id`",
    "version": "version of metrics-etl",
    "dataset": "folder or bucket",
    "started_at": "when the run started",
    "finished_at": "when it ended",
    "seconds": "how long it took",
    "outcome": "the exit code as a word",
    "exit_code": "the exit code",
    "problems": "one line for each thing that is missing or wrong; empty when the run is complete",
    "notices": "one line for each thing worth knowing although nothing is missing",
    "requests": "requests sent to the API",
    "requests_by_purpose": "the same by purpose",
    "saved_requests": 'requests that `settle_by = "detail"` saved; negative when it cost more than it saved',
    "necessary_requests": "the fewest requests with which this run could have been done",
    "retries": "requests sent again after a failure",
    "rejections": "requests that the rate limit refused",
    "requests_per_minute": "the rate limit that was kept; null when none is known",
    "redactions": "answers that contained one of your keys, which was removed",
    "files": "files written",
    "bytes": "bytes written",
    "store_requests": "requests to the bucket, by kind, without retries; empty for a folder",
    "warehouse": "what was loaded: the fields of `load --json`; null without a warehouse, and always in `last_run.json`",
    "rows": "new or changed rows, by table",
    "complete_at": "when a run last exported everything that is configured; null when none did",
    "last_complete_at": "the same for each configured run test, by its key; a run with `--since` does not count",
    "incomplete": "keys of configured run tests that are not complete: the last run that included them left something out, was "
    "killed or could not start",
    "undiscovered": "what is wrong with the list of all run tests, in words, as the last run said that read it",
    "asked_for": "keys of run tests that the source no longer has, and whose executions have all been looked up, or accepted as "
    "deleted",
    "ask_again": "keys of run tests that are not exported, and of whose executions some could not be looked up: the next run "
    "tries again",
    "not_listed": "by key, how many stored executions still exist but were missing from the last list",
    "is_all": 'whether `complete_at` was reached with `run_tests = "all"`',
    "complete_since": "by key, the `since` with which `last_complete_at` was reached; null for none",
    "run_tests[].name": "name of the run test",
    "run_tests[].key": "its key, as in the folder `run_test=KEY`",
    "run_tests[].is_complete": "whether this run exported all of it",
    "run_tests[].listed": "executions in its list",
    "run_tests[].reasons": "executions by reason",
    "run_tests[].missed": "executions left to the next run, because this one ended early",
    "run_tests[].not_listed": "stored executions that still exist but were missing from its list",
    "run_tests[].deleted": "executions that were deleted at the source",
    "run_tests[].moved": "executions that moved here from another run test",
    "run_tests[].executions": "executions that arrived, changed or not",
    "run_tests[].calls": "calls that arrived, changed or not",
    "run_tests[].evals": "evals that arrived, changed or not; an execution that is saved in pieces brings them again at its end",
    "run_tests[].dead_letters": "requests that were given up",
    "run_tests[].misfits": "values that did not fit their column, and are in `extra`",
    "run_tests[].error": "why it could not be exported; otherwise null",
    "receipt.written[].path": "a file that the run wrote",
    "receipt.written[].rows": "its rows",
    "receipt.written[].bytes": "its size",
    "receipt.written[].sha256": "the SHA-256 of its bytes",
    "receipt.removed": "files that were moved or set aside",
    "receipt.not_listed": "how many more files were written or removed, beyond 20,000",
    "receipt.executions": "by key, how many executions were `inserted`, `replaced` or `verified`; and how many were `moved` "
    "here, `marked` as deleted, or `emptied` of their calls",
}
"""What each field of the JSON means, and of ``_state/last_run.json``."""


def print_summary(summary: Summary) -> None:
    """What was written, what is missing and where the dataset is; to stdout."""
    console = stdout_console()
    _print_run_tests(console, summary.run_tests)
    print_line(console, "written", _written(summary))
    print_line(console, "requests", _requests(summary))
    if summary.store_requests:
        print_line(console, "bucket", _bucket(summary.store_requests))
    print_line(console, "dataset", f"{summary.dataset} (new)" if summary.is_first else summary.dataset)
    if summary.load:
        print_line(console, "warehouse", f"{summary.load.warehouse}: {loaded(summary.load)}")
    if misfits := sum(run_test.misfits for run_test in summary.run_tests):
        print_line(console, "misfits", f"{counted(misfits, 'value')} did not fit the column: see the column extra")
    for notice in summary.notices:
        print_line(console, "notice", notice)
    for problem in summary.problems:
        print_line(console, "problem", problem, style="bold red")
    print_line(console, "outcome", f"{summary.outcome} (exit {summary.exit_code})")


def print_how_to_open(dataset: str, options: Options | None = None) -> None:
    """Code that opens the dataset, to copy; to stdout. ``options`` are those of a bucket."""
    console = stdout_console()
    given = f", options={dict(options)}" if options else ""
    print_line(console, "Python", f'etl.read_calls("{dataset}", evals="wide"{given})')
    if scheme_of(dataset) is None:
        print_line(console, "pandas", f'pd.read_parquet("{dataset}/calls", dtype_backend="pyarrow")')
        print_line(console, "DuckDB", f"FROM '{dataset}/calls/*/*/*.parquet'")


def _written(summary: Summary) -> str:
    rows = ", ".join(
        counted(summary.rows[name], name.removesuffix("s")) for name in schema.TABLES if summary.rows.get(name)
    )
    if rows:
        return f"{rows} (new or changed rows)"
    if summary.files:
        return f"{counted(summary.files, 'file')}, with no new or changed rows"
    return "nothing" if summary.exit_code else "nothing: everything that was asked for is up to date"


def _requests(summary: Summary) -> str:
    text = f"{counted(summary.requests, 'request')} in {duration(summary.seconds)}"
    if summary.retries or summary.rejections:
        text += f" ({summary.retries:,} sent again, {summary.rejections:,} refused by the rate limit)"
    if summary.requests:
        text += f": {by_purpose(summary.requests_by_purpose)}"
    if summary.saved_requests > 0:
        text += f"; comparing saved {summary.saved_requests:,}"
    return text


def _bucket(requests: Mapping[str, int]) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(requests.items()))
    return f"{counted(sum(requests.values()), 'request')} to the store until now: {kinds}"


def _print_run_tests(console: Console, run_tests: Sequence[RunTestSummary]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    add_name_column(console, table, "run test")
    for name in ("listed", "fetched", "waiting", "calls", "evals"):
        table.add_column(name, justify="right")
    table.add_column("state", overflow="fold")
    for run_test in run_tests:
        waiting = run_test.reasons[Reason.WAITING]
        fetched = sum(run_test.reasons.values()) - waiting - run_test.reasons[Reason.FINAL] - run_test.missed
        figures = (run_test.listed, fetched, waiting, run_test.calls, run_test.evals)
        state = "complete" if run_test.is_whole else "failed" if run_test.error else "incomplete"
        state = f"{run_test.missed:,} left" if run_test.missed else state
        table.add_row(printable(run_test.name), *(f"{figure:,}" for figure in figures), state)
    console.print(table)
