"""Where a call is shown, and who may be told. Mistakes in these sections: test_messages.py."""

import pytest

from etl.settings.results import Notification, ReportSettings


def test_call_is_linked_where_its_page_is_known_and_by_default_only_calls_of_the_hosted_api() -> None:
    nowhere, own = ReportSettings(), ReportSettings(call_url="https://h/{execution_id}/{call_execution_id}")
    app = ReportSettings(call_url="https://h/")
    links = [settings.call_link(None, "e/1", "c 2") for settings in (own, app, nowhere)]
    assert links == ["https://h/e%2F1/c%202", None, None]
    assert app.call_link("r", "e", "c") == "https://h/dashboard/simulate/test/r/e"
    hosted = nowhere.links_for("https://api.futureagi.com")
    assert hosted.call_link("r", "e", "c") == "https://app.futureagi.com/dashboard/simulate/test/r/e"
    assert nowhere.links_for("https://own.example").call_link("r", "e", "c") is None
    assert ReportSettings(call_url="").links_for("https://api.futureagi.com").call_link("r", "e", "c") is None


@pytest.mark.parametrize("url", ["http://example.com/canary", "ftp://h/canary", "canary"])
def test_webhook_that_others_could_read_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be an https:// address"):
        Notification(url=url)
