"""The exit code of a check with several problems, and the rate limit. The checks themselves: tests/e2e/test_check.py."""

from etl.errors import ExitCode
from etl.pipeline.preflight import Check, Subject, exit_code


def test_what_must_be_fixed_first_gives_the_exit_code() -> None:
    checks = [
        Check(Subject.LOCK, "", ExitCode.LOCK_HELD),
        Check(Subject.DESTINATION, "", ExitCode.DESTINATION_FAILED),
        Check(Subject.SERVER, "", ExitCode.SOURCE_UNAVAILABLE),
    ]
    assert exit_code(checks) == 5
    assert exit_code([Check(Subject.LOCK, "held", ExitCode.LOCK_HELD), Check(Subject.KEY, "fine")]) == 75
    assert exit_code([]) == 0
