"""The one place where settings become a client of the API."""

from collections.abc import Callable

from etl.errors import ConfigurationError
from etl.extract.client import Client
from etl.extract.quota import Quota
from etl.extract.transport import Access, Limits, Proxy
from etl.settings import Settings
from etl.version import __version__


def client_of(
    settings: Settings, *, on_hold: Callable[[float], None] | None = None, quota: Quota | None = None
) -> Client:
    """A client as the settings want it. ``on_hold`` is told for how many seconds nothing will be sent.

    A ``quota`` that was used before goes on, in place of one by the settings.

    Raises:
        ConfigurationError: the settings were loaded without the keys.
    """
    if settings.api_key is None or settings.secret_key is None:
        raise ConfigurationError("the settings hold no keys: load them with needs_keys=True")
    api = settings.api
    return Client(
        Access(
            base_url=api.base_url,
            api_key=settings.api_key.get_secret_value,
            secret_key=settings.secret_key.get_secret_value,
            ca_file=str(api.ca_file) if api.ca_file else None,
            proxy=_proxy(settings),
        ),
        version=__version__,
        limits=Limits(
            concurrency=api.concurrency,
            connect_timeout_seconds=api.connect_timeout_seconds,
            read_timeout_seconds=api.read_timeout_seconds,
            max_tries=api.max_tries,
            max_response_bytes=api.max_response_mb << 20,
        ),
        quota=quota or Quota(requests_per_minute=api.requests_per_minute, share=api.quota_share),
        on_hold=on_hold,
    )


def _proxy(settings: Settings) -> Proxy | None:
    if settings.api.proxy is None:
        return None
    user, password = settings.proxy_user, settings.proxy_password
    if user is None or password is None:
        return Proxy(settings.api.proxy)
    return Proxy(settings.api.proxy, user.get_secret_value, password.get_secret_value)
