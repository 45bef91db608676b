"""The last run as a Prometheus textfile, for node_exporter's textfile collector. Needs the extra ``prometheus``."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from etl.errors import ConfigurationError, DestinationError, needs_extra
from etl.files.open import is_in_dataset
from etl.pipeline.summary import Summary


def check_metrics_file(path: Path, dataset: str) -> None:
    """Refuse, before a run, a file to which its metrics could not be written after it. ``dataset`` is its path or URL.

    Raises:
        ConfigurationError: the extra is not installed, the file's name does not end in .prom, its folder does not
            exist, or it is inside the dataset.
    """
    try:
        import prometheus_client  # noqa: F401, PLC0415
    except ImportError as exc:
        raise needs_extra("--metrics-file", "prometheus", exc) from None
    if path.suffix != ".prom":
        raise ConfigurationError(f"--metrics-file {path}: the collector reads only files named *.prom: rename it")
    if not path.parent.is_dir():
        raise ConfigurationError(f"--metrics-file {path}: the folder does not exist: create it")
    if is_in_dataset(path, dataset):
        raise ConfigurationError(f"--metrics-file {path}: is inside the dataset: use another folder")


def write_metrics_file(summary: Summary, path: Path) -> None:
    """Replace the file as a whole by the figures of this run. Every metric is a gauge with the label ``dataset``.

    Raises:
        DestinationError: it cannot be written; the old file, if there is one, is unchanged.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile  # noqa: PLC0415

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for name, meaning, value, labels in _samples(summary):
        if name not in gauges:
            gauges[name] = Gauge(f"metrics_etl_{name}", meaning, ["dataset", *labels], registry=registry)
        gauges[name].labels(dataset=summary.dataset, **labels).set(value)
    try:
        write_to_textfile(str(path), registry)
    except OSError as exc:
        raise DestinationError(f"--metrics-file {path}: cannot be written: {exc.strerror}") from exc


def _samples(summary: Summary) -> Iterator[tuple[str, str, float, dict[str, str]]]:
    """The name without its prefix, the meaning, the value and the labels of each sample. Times are Unix seconds."""
    yield "run_finished_timestamp_seconds", "When the last run ended.", _timestamp(summary.counts_from), {}
    yield "run_exit_code", "Exit code of the last run: 0 complete, 3 partial.", summary.exit_code, {}
    yield "run_duration_seconds", "How long the last run took.", summary.seconds, {}
    for purpose, sent in summary.requests_by_purpose.items():
        yield "run_requests", "Requests that the last run sent, by purpose.", sent, {"purpose": purpose}
    yield "run_call_requests", "Requests for single calls in the last run.", summary.call_requests, {}
    yield "run_retries", "Requests that the last run sent again.", summary.retries, {}
    yield "run_rejections", "Requests that the rate limit refused in the last run.", summary.rejections, {}
    yield "run_written_bytes", "Bytes that the last run wrote.", summary.size_bytes, {}
    yield "run_problems", "How many things were missing or wrong after the last run.", len(summary.problems), {}
    if (limit := summary.requests_per_minute) is not None:
        yield "rate_limit_requests_per_minute", "The rate limit that the last run kept to.", limit, {}
    for table, rows in summary.rows.items():
        yield "run_rows", "Rows that the last run wrote, new or changed.", rows, {"table": table}
    complete = summary.completeness
    meaning = "When everything configured was last exported; 0 for never."
    yield "dataset_complete_timestamp_seconds", meaning, _timestamp(complete.complete_at), {}
    if (loaded_at := summary.warehouse_loaded_at) is not None:
        meaning = "When the warehouse last had everything; 0 for never. Only with a warehouse."
        yield "warehouse_loaded_timestamp_seconds", meaning, _timestamp(loaded_at), {}
    for key, at in complete.last_complete_at.items():
        meaning = "When everything in the run test was last exported; 0 for never."
        yield "last_complete_timestamp_seconds", meaning, _timestamp(at), {"run_test": key}
        meaning = "1 when the last run that included the run test exported everything."
        yield "complete", meaning, key not in complete.incomplete, {"run_test": key}
    for run_test in summary.run_tests:
        labels = {"run_test": run_test.key}
        yield "dead_letters", "Requests that failed in the last run.", run_test.dead_letters, labels
        yield "from_lists", "Executions that the last run stored from their lists only.", run_test.previewed, labels
        for reason, count in run_test.reasons.items():
            yield "executions", "Listed executions, by reason.", count, labels | {"reason": reason}


def _timestamp(at: datetime | None) -> float:
    return at.timestamp() if at else 0
