"""The last run as a Prometheus textfile, for node_exporter's textfile collector. Needs the extra ``prometheus``."""

from datetime import datetime
from pathlib import Path

from etl.errors import ConfigurationError, DestinationError
from etl.load.files.open import is_in_dataset
from etl.pipeline.summary import Summary

_PREFIX = "metrics_etl"


def check_metrics_file(path: Path, dataset: str) -> None:
    """Check before a run on the dataset there that its metrics can be written after it.

    Raises:
        ConfigurationError: prometheus-client is not installed, the folder does not exist, or it is the dataset's.
    """
    try:
        import prometheus_client  # noqa: F401, PLC0415
    except ImportError:
        raise ConfigurationError(
            "--metrics-file needs prometheus-client: pip install 'simulation-metrics-etl[prometheus]'"
        ) from None
    if path.suffix != ".prom":
        raise ConfigurationError(f"--metrics-file {path}: the collector reads files that end with .prom: rename it")
    if not path.parent.is_dir():
        raise ConfigurationError(f"--metrics-file {path}: the folder does not exist: create it")
    if is_in_dataset(path, dataset):
        raise ConfigurationError(f"--metrics-file {path}: it must be outside the dataset: use another folder")


def write_metrics_file(summary: Summary, path: Path) -> None:
    """Replace the file as a whole by the figures of this run. Every metric is a gauge with the label ``dataset``.

    Raises:
        DestinationError: it cannot be written; the old one is untouched.
    """
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile  # noqa: PLC0415

    registry = CollectorRegistry()

    def set_gauge(name: str, meaning: str, value: float, **labels: str) -> None:
        full = f"{_PREFIX}_{name}"
        gauge = gauges.get(full) or Gauge(full, meaning, ["dataset", *labels], registry=registry)
        gauges[full] = gauge
        gauge.labels(dataset=summary.dataset, **labels).set(value)

    gauges: dict[str, Gauge] = {}
    set_gauge("run_finished_timestamp_seconds", "When the last run ended.", summary.counts_from.timestamp())
    set_gauge("run_exit_code", "Exit code of the last run: 0 complete, 3 partial.", summary.exit_code)
    set_gauge("run_duration_seconds", "How long the last run took.", summary.seconds)
    for purpose, sent in summary.requests_by_purpose.items():
        set_gauge("run_requests", "Requests that the last run sent, by purpose.", sent, purpose=purpose)
    set_gauge("run_saved_requests", "Requests that comparing saved in the last run.", summary.saved_requests)
    set_gauge("run_retries", "Requests that the last run sent again.", summary.retries)
    set_gauge("run_rejections", "Requests of the last run that the rate limit refused.", summary.rejections)
    set_gauge("run_written_bytes", "Bytes that the last run wrote.", summary.size_bytes)
    set_gauge("run_problems", "How many things were missing or wrong after the last run.", len(summary.problems))
    if summary.requests_per_minute is not None:
        set_gauge("rate_limit_requests_per_minute", "The rate limit that was kept.", summary.requests_per_minute)
    for table, rows in summary.rows.items():
        set_gauge("run_rows", "Rows that the last run wrote, new or changed.", rows, table=table)
    set_gauge(
        "dataset_complete_timestamp_seconds",
        "When everything configured was last exported; 0 for never.",
        _timestamp(summary.completeness.complete_at),
    )
    if summary.warehouse_loaded_at:
        meaning = "When a load last left nothing out of the warehouse; 0 for never. Only with a warehouse."
        set_gauge("warehouse_loaded_timestamp_seconds", meaning, _timestamp(summary.warehouse_loaded_at))
    for key, at in summary.completeness.last_complete_at.items():
        set_gauge(
            "last_complete_timestamp_seconds",
            "When everything in the run test was last exported; 0 for never.",
            _timestamp(at),
            run_test=key,
        )
        is_complete = key not in summary.completeness.incomplete
        set_gauge(
            "complete", "1 when the last run that included the run test exported everything.", is_complete, run_test=key
        )
    for run_test in summary.run_tests:
        set_gauge("dead_letters", "Requests that the last run gave up.", run_test.dead_letters, run_test=run_test.key)
        for reason, count in run_test.reasons.items():
            set_gauge("executions", "Listed executions, by reason.", count, run_test=run_test.key, reason=reason)
    try:
        write_to_textfile(str(path), registry)
    except OSError as exc:
        raise DestinationError(f"--metrics-file {path}: cannot be written: {exc.strerror}") from exc


def _timestamp(at: datetime | None) -> float:
    return at.timestamp() if at else 0
