"""Airflow 3: export simulation metrics every night.

Calls the command in its own virtual environment, on a worker that has the dataset's disk, so that its packages and
those of Airflow never meet.
"""

import json
import subprocess
from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

COMMAND = ["/opt/metrics-etl/bin/metrics-etl", "run", "--json", "--config", "/etc/metrics-etl/metrics-etl.toml"]
KEYS = {"FI_API_KEY_FILE": "/etc/metrics-etl/api-key", "FI_SECRET_KEY_FILE": "/etc/metrics-etl/secret-key"}


def run_export(command: list[str], environment: dict[str, str]) -> dict:
    """Run the command; its events go to the task's log. Returns the summary."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            stdout, _ = process.communicate()
        except BaseException:
            process.terminate()  # the task was stopped: let the export save what has arrived
            process.wait()
            raise
    summary = json.loads(stdout) if stdout else {"problems": ["it did not begin, the log above says why"]}
    judge(process.returncode, summary["problems"])
    return summary


def judge(exit_code: int, problems: list[str]) -> None:
    """Skip, try again later, fail for good, or go on."""
    message = f"metrics-etl ended with {exit_code}: {'; '.join(problems)}"
    if exit_code == 75:
        raise AirflowSkipException("another export is running on this dataset")
    if exit_code == 5:
        raise RuntimeError(message)  # the source is unavailable: the task's retries
    if exit_code:
        raise AirflowFailException(
            message
        )  # trying again at once cannot help; 3 is committed, but something is missing


@dag(
    schedule="17 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # one run exports whatever is new, however many nights were missed
    max_active_runs=1,
)
def simulation_metrics():
    @task(retries=4, retry_delay=timedelta(minutes=15), execution_timeout=timedelta(hours=10))
    def export() -> dict:
        return run_export(COMMAND, KEYS)

    export()


simulation_metrics()
