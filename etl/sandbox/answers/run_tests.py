"""What /simulate/run-tests/ answers; unlike the other answers it has no envelope. Pure."""

from collections.abc import Mapping
from typing import Any

from etl.sandbox.answers.fields import page_link, page_of, timestamp
from etl.sandbox.world import RunTest, World


def run_tests_page(world: World, url: str, query: Mapping[str, str], max_limit: int | None = None) -> dict[str, Any]:
    """/simulate/run-tests/: run tests whose name contains ``search``, newest first, with links made from ``url``.

    Raises:
        PastTheEndError: there is no such page.
    """
    search = query.get("search", "").strip().lower()
    rows = sorted(
        (each for each in world.run_tests if search in each.name.lower()),
        key=lambda each: each.created_at,
        reverse=True,
    )
    found = page_of(rows, query.get("page"), query.get("limit"), max_limit)
    current = found["current_page"]
    return {
        "count": found["count"],
        "next": page_link(url, query, current + 1) if current < found["total_pages"] else None,
        "previous": page_link(url, query, current - 1) if current > 1 else None,
        "results": [_run_test(each, world.organization_id) for each in found["results"]],
        "total_pages": found["total_pages"],
        "current_page": current,
    }


def _run_test(run_test: RunTest, organization_id: str) -> dict[str, Any]:
    configs: list[dict[str, Any]] = [
        {
            "id": each.config_id,
            "name": each.name,
            "config": {},
            "mapping": {},
            "filters": {},
            "error_localizer": False,
            "model": None,
            "status": "Completed",
            "eval_group": None,
            "template_id": each.template_id,
        }
        for each in run_test.eval_configs
    ]
    last_run_at = max((each.created_at for each in run_test.executions if not each.is_deleted), default=None)
    return {
        "id": run_test.run_test_id,
        "name": run_test.name,
        "description": run_test.description,
        "agent_definition": None,
        "agent_version": None,
        "agent_definition_detail": None,
        "source_type": "agent_definition",
        "source_type_display": "Agent Definition",
        "prompt_template": None,
        "prompt_template_detail": None,
        "prompt_version": None,
        "prompt_version_detail": None,
        "scenarios": [],
        "scenarios_detail": [],
        "dataset_row_ids": [],
        "simulator_agent": None,
        "simulator_agent_detail": None,
        "simulate_eval_configs": [each.config_id for each in run_test.eval_configs],
        "simulate_eval_configs_detail": configs,
        "evals_detail": configs,
        "organization": organization_id,
        "enable_tool_evaluation": False,
        "created_at": timestamp(run_test.created_at),
        "updated_at": timestamp(run_test.created_at),
        "last_run_at": timestamp(last_run_at),
        "deleted": False,
        "deleted_at": None,
        "evals": configs,
    }
