"""HTTP addresses, as far as a client could connect to them. Pure."""

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from yarl import URL


def split_address(value: str) -> SplitResult:
    """The parts of the address.

    Raises:
        ValueError: its port is no number, or its host no name for the domain name system: it has an empty or too long label.
    """
    url = URL(value, encoded=True)
    _ = url.port, (url.host or "").encode("idna")
    return urlsplit(value)


def is_loopback(host: str) -> bool:
    """Whether it is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
