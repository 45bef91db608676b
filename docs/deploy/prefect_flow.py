"""Prefect 3: export simulation metrics every night through the Python API."""

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import TaskRun
from prefect.states import Completed, State
from prefect.tasks import Task

import etl

CONFIG = "/etc/metrics-etl/metrics-etl.toml"


class ExportFailedError(Exception):
    """The run ended with another exit code than 0."""

    def __init__(self, exit_code: int, problems: list[str]) -> None:
        super().__init__(exit_code, problems)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"exit code {self.exit_code}: {'; '.join(self.args[1])}"


def is_source_unavailable(_task: Task, _run: TaskRun, state: State) -> bool:
    """Retry what may pass within the hour; everything else fails at once."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, ExportFailedError) and error.exit_code == 5


@task(retries=4, retry_delay_seconds=900, retry_condition_fn=is_source_unavailable)
def export(config: str) -> dict | None:
    """The summary, or None when another export is running on the dataset."""
    try:
        summary = etl.run(config)
    except etl.LockHeldError as error:
        get_run_logger().info("skipped: %s", error)
        return None
    except etl.ExporterError as error:  # it did not begin: settings, keys, the dataset's folder
        raise ExportFailedError(error.exit_code, [str(error)]) from error
    if summary.exit_code:  # 3 is committed, but something is missing
        raise ExportFailedError(summary.exit_code, summary.problems)
    return summary.as_json()


@flow(name="simulation-metrics")
def simulation_metrics(config: str = CONFIG) -> dict | State:
    return export(config) or Completed(name="Skipped", message="another export is running on this dataset")


if __name__ == "__main__":
    simulation_metrics.serve(name="nightly", cron="17 2 * * *", limit=1)
