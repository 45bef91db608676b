"""The sections about what is made of a dataset: limits of ``compare``, the webhook of ``notify``, links of ``report``.

As in ``sections``, users read the text below each key and the first text of each section. Reads no file.
"""

import re
from datetime import date
from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field

from etl.model.locations import without_secrets
from etl.model.metrics import LINE_FAILURES, Limit, limits_of
from etl.settings.sections import HOSTED_API, Section, http_url, is_loopback

_CALL_URL = re.compile(r"https?://[\w.:\[\]-]+(/([!-z|~]|\{(run_test|(call_)?execution)_id\})*)?", re.ASCII)
_HOSTED_APP = "https://app.futureagi.com"
_PAGE = "/dashboard/simulate/test/{run_test_id}/{execution_id}"
"""Where the application shows an execution; a call has no page of its own."""


def _known_limits(value: Any) -> Any:
    if isinstance(value, dict):
        limits_of({name: str(limit) for name, limit in value.items()})
    return value


class Compare(Section):
    """How much worse a metric may get before ``metrics-etl compare`` fails, and how often the nightly verdict may be
    wrong.
    """  # noqa: D205 - one sentence for users

    max_regression: Annotated[dict[str, str], BeforeValidator(_known_limits)] = Field({})
    """how much worse each metric may get in compare: "10%" of the baseline or, for a rate, "2pp" (percentage points)"""
    false_alarms_per_year: float = Field(1.0, gt=0, le=100)
    """how many unchanged metrics the nightly verdict may call worse in a year, over all run tests: above 0, at most
    100. If slow nights tend to follow each other, there may be up to 4 times as many
    """
    accepted: dict[str, date] = Field({})
    """for a run test, or for one metric ("RUN TEST/METRIC"), the day from which its values count as the new normal; the
    nightly verdict ignores earlier nights
    """

    line_failures: list[Annotated[str, Field(min_length=1)]] = Field([*LINE_FAILURES])
    """words in a failed call's ended_reason which mean that the telephone line failed, not the agent"""

    @property
    def limits(self) -> dict[str, Limit]:
        """The limits by metric name. All of them are valid: the settings were refused otherwise."""
        return limits_of(self.max_regression)


def _webhook(value: str | None) -> str | None:
    if not value:
        return value
    url = http_url(value)
    if url is None or (url.scheme == "http" and not is_loopback(url.host or "")):
        # The address is not repeated: anyone who knows it may post there.
        raise ValueError("must be an https:// address (plain http:// is allowed for this machine only)")
    return value


class Notification(Section):
    """Where a run reports its findings, each of them once."""

    url: Annotated[str | None, AfterValidator(_webhook)] = Field(None, repr=False)
    """webhook, such as Slack's, that gets new alarms as JSON; plain http:// is allowed for this machine only"""


def _call_address(value: str | None) -> str | None:
    if value and not _CALL_URL.fullmatch(value):
        raise ValueError(
            f"must be https://HOST, or an address with {{call_execution_id}}, got {without_secrets(value)}"
        )
    return value


class ReportSettings(Section):
    """Where links in reports lead."""

    call_url: Annotated[str | None, AfterValidator(_call_address)] = None
    """host of the platform's web application, or an address with {run_test_id}, {execution_id} or {call_execution_id}.
    The default for the hosted API is https://app.futureagi.com; with another server, reports have no links
    """

    def links_for(self, base_url: str) -> Self:
        """These settings, with the hosted application for calls of the hosted API if nothing else is set."""
        is_hosted = self.call_url is None and base_url == HOSTED_API
        return self.model_copy(update={"call_url": _HOSTED_APP}) if is_hosted else self

    def call_link(self, run_test_id: str | None, execution_id: str, call_execution_id: str) -> str | None:
        """The address of this call on the platform, or of its execution; None where that is not known."""
        url = self.call_url or ""
        url = f"{url.rstrip('/')}{_PAGE}" if url and "{" not in url else url
        if not url or (run_test_id is None and "{run_test_id}" in url):
            return None
        ids = {"run_test_id": run_test_id or "", "execution_id": execution_id, "call_execution_id": call_execution_id}
        return url.format(**{name: quote(value, safe="") for name, value in ids.items()})
