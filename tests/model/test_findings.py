"""Every kind of finding says what it means, and every alarm what to do."""

import re

import pytest
from typer.main import get_command

from etl.cli.commands import app
from etl.model.findings import Finding, Kind, Severity, alarms

COMMANDS = get_command(app).commands.keys()  # type: ignore[attr-defined]
ACTIONS = ("check", "correct", "set", "upgrade", "inspect", "rotate", "report", "move", "leave", "if", "the next run")
"""What a person does who is told to do something else than to type a command."""


def test_every_kind_has_a_meaning_of_its_own_and_the_value_of_its_name():
    assert [each.value for each in Kind] == [each.name.lower() for each in Kind]
    assert len({each.meaning for each in Kind}) == len(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_next_step_of_an_alarm_is_a_command_or_an_action(kind):
    assert not kind.meaning.endswith(".")
    assert re.match(r"[a-z]", kind.meaning)
    step = kind.next_step
    is_command = step.startswith("metrics-etl ") and step.split()[1].rstrip(",.") in COMMANDS
    if Finding(kind, "", "").is_alarm:
        assert is_command or step.startswith(ACTIONS)
    else:
        assert is_command or step.startswith((*ACTIONS, "nothing"))
    assert {found in COMMANDS for found in re.findall(r"metrics-etl ([a-z]+)", step)} <= {True}


def test_only_what_is_missing_or_unknown_is_an_alarm():
    findings = [Finding(kind, "Checkout", "a text") for kind in Kind]
    assert [each.kind for each in alarms(findings)] == [
        kind for kind in Kind if kind.severity in (Severity.MISSING, Severity.UNKNOWN)
    ]


def test_finding_shows_its_subject_and_all_that_a_script_needs():
    finding = Finding(Kind.LIST_WRONG, "Check\nout", "3 of its executions exist")
    assert str(finding) == "'Check\\nout': 3 of its executions exist"
    assert str(Finding(Kind.RENAMED, "", "a text")) == "a text"
    assert finding.as_json() == {
        "kind": "list_wrong",
        "severity": "unknown",
        "subject": "Check\nout",
        "text": "3 of its executions exist",
        "next_step": "the next run tries again",
    }
