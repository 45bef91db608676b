"""Dagster: the simulation metrics as an asset, exported every night through the Python API."""

from collections.abc import Iterator

import dagster as dg

import etl

CONFIG = "/etc/metrics-etl/metrics-etl.toml"


@dg.asset(output_required=False)
def simulation_metrics(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    try:
        summary = etl.run(CONFIG)
    except etl.LockHeldError as error:
        context.log.info("skipped: %s", error)
        return
    except etl.ExporterError as error:  # it did not begin: settings, keys, the dataset's folder
        raise dg.Failure(str(error), allow_retries=False) from error
    for problem in summary.problems:
        context.log.error(problem)
    if summary.exit_code == 5:  # the source is unavailable
        raise dg.RetryRequested(max_retries=4, seconds_to_wait=900)
    if summary.exit_code:  # 3 is committed, but something is missing; an immediate retry fixes nothing
        told = {"exit_code": int(summary.exit_code)}  # Dagster stores plain numbers, no enumerations
        raise dg.Failure("; ".join(summary.problems), metadata=told, allow_retries=False)
    yield dg.MaterializeResult(
        metadata={"requests": summary.requests, "rows": summary.rows, "dataset": summary.dataset}
    )


export_job = dg.define_asset_job("export_simulation_metrics", selection=[simulation_metrics])

defs = dg.Definitions(
    assets=[simulation_metrics],
    jobs=[export_job],
    schedules=[dg.ScheduleDefinition(job=export_job, cron_schedule="17 2 * * *", execution_timezone="UTC")],
)
