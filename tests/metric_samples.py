"""The textfile that ``run --metrics-file`` writes, as Prometheus reads it."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families


def samples(folder: Path) -> dict[tuple[str, ...], float]:
    """Values by name and labels but ``dataset``, which all of them have."""
    found = {}
    for family in text_string_to_metric_families((folder / "metrics.prom").read_text()):
        for sample in family.samples:
            assert sample.labels.pop("dataset") == str(folder / "data")
            found[sample.name.removeprefix("metrics_etl_"), *sample.labels.values()] = sample.value
    return found
