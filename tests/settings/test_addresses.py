"""Addresses that no client could connect to are told before anything is sent."""

import pytest

from etl.settings.addresses import is_loopback, split_address


@pytest.mark.parametrize(
    "host", ["api..example.com", f"{'a' * 64}.example", ".example", "xn--", "xn--a.example", "host:abc", "host:99999"]
)
def test_address_without_a_possible_host_or_port_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"codec|[Pp]ort"):
        split_address(f"https://{host}")


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("https://api.example.com./prefix", "api.example.com."),
        ("http://127.0.0.1:8000", "127.0.0.1"),
        ("http://[::1]:8000", "::1"),
        ("https://xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("https://under_score", "under_score"),
    ],
)
def test_parts_of_an_address_are_told(address: str, host: str) -> None:
    assert split_address(address).hostname == host
    assert is_loopback(host) == (host in ("127.0.0.1", "::1"))
