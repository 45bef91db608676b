"""Where a call is shown, and who may be told. Mistakes in these sections: test_messages.py."""

import pytest

from etl.settings.results import Notification, ReportSettings


def test_call_is_linked_with_its_ids_if_the_address_for_its_run_test_is_known() -> None:
    everywhere = ReportSettings(call_url="https://h/{execution_id}/{call_execution_id}")
    for_one = ReportSettings(call_url={"A": "https://h/{call_execution_id}"})
    links = [settings.call_link("B", "e/1", "c 2") for settings in (everywhere, for_one, ReportSettings())]
    assert links == ["https://h/e%2F1/c%202", None, None]


@pytest.mark.parametrize("url", ["http://example.com/canary", "ftp://h/canary", "canary"])
def test_webhook_that_others_could_read_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be an https:// address"):
        Notification(url=url)
