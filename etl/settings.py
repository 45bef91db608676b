"""Settings: a TOML file, overridden by the environment, with the keys from the environment or from files alone.

Every mistake is one line that names the place and the mend. Keys are ``SecretStr``: no message, log or repr shows them.
"""

import os
import stat
import tomllib
from collections.abc import Collection, Iterable, Mapping
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)
from yarl import URL

from etl.errors import ConfigurationError
from etl.mistakes import BASE_URL, ENV_PREFIX, first_mistake, nearest
from etl.store.layout import default_key, is_key

DEFAULT_PATH = "config/metrics-etl.toml"
_BUCKET_SCHEMES = ("s3://", "gs://", "az://", "abfs://")
_SECRETS = {"api_key": "FI_API_KEY", "secret_key": "FI_SECRET_KEY"}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunTest(_Section):
    """One run test to export: its name at the API, the name of its partition, and the day to begin at."""

    name: str = Field(min_length=1)
    key: str = ""
    since: date | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _keyed(self) -> Self:
        if self.name != self.name.strip():
            raise ValueError(f"name must not begin or end with a space, which the API leaves out, got {self.name!r}")
        if not self.key:
            return self.model_copy(update={"key": default_key(self.name)})
        if not is_key(self.key):
            raise ValueError(
                f"key must be lower-case letters and digits, joined by - or _, begin with a letter and not read as a value, "
                f"got {self.key!r}"
            )
        return self


def _run_tests(value: Any) -> Any:
    if value == "all":
        return ()
    if value in ([], ()):
        raise ValueError('must be "all", or name at least one run test')
    return value


def _requests_per_minute(value: Any) -> int | None:
    if value == "auto":
        return None
    if str(value).isascii() and str(value).isdigit() and int(value) >= 1:
        return int(value)
    raise ValueError('must be "auto" or a whole number of at least 1')


class Api(_Section):
    """The source and how hard to ask it."""

    base_url: str = "https://api.futureagi.com"
    concurrency: int = Field(32, ge=1, le=256)
    requests_per_minute: Annotated[int | None, BeforeValidator(_requests_per_minute)] = None
    """None: "auto", learned from the API's answers."""
    quota_share: float = Field(1.0, gt=0, le=1)
    page_limit: int = Field(1024, ge=1, le=16384)
    connect_timeout_seconds: float = Field(10, gt=0, le=600)
    read_timeout_seconds: float = Field(60, gt=0, le=3600)
    max_tries: int = Field(6, ge=1, le=20)
    max_response_mb: int = Field(256, ge=1, le=4096)
    ca_file: Path | None = None

    @field_validator("base_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        try:
            parts, _ = urlsplit(value), URL(value, encoded=True).port
        except ValueError:
            raise ValueError(f"must be an https:// address, got {value!r}") from None
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise ValueError(f"must be an https:// address in ASCII, got {value!r}")
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f"must be an https:// address, got {value!r}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must be scheme, host and path alone, got more than that")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError(f"must be https:// (plain http:// goes to this machine only), got {value!r}")
        return value.rstrip("/")

    @field_validator("ca_file")
    @classmethod
    def _ca_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"must be a file of certificates, got {str(value)!r}")
        return value

    @field_validator("page_limit")
    @classmethod
    def _page_limit(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"must be a power of two, got {value}")
        return value


class Export(_Section):
    """What to export and when an execution counts as settled."""

    settle_hours: float = Field(24, ge=0, le=24 * 365)
    scrub_requests: int = Field(0, ge=0, le=1_000_000)
    max_runtime_minutes: float | None = Field(None, gt=0, le=60 * 24 * 7)
    calls: Literal["finished", "all"] = "finished"
    commit_interval_seconds: float = Field(30, gt=0, le=3600)
    include_raw: bool = False


class Destination(_Section):
    """Where the dataset lies."""

    path: str = Field("data", min_length=1)
    compression: Literal["zstd", "snappy", "gzip", "none"] = "zstd"

    @property
    def folder(self) -> Path:
        """The path, with ``~`` for the user's home."""
        return Path(self.path).expanduser()

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if value.startswith(_BUCKET_SCHEMES):
            raise ValueError(f"buckets are not supported yet: give a folder, got {value!r}")
        if "://" in value or not value.isprintable():
            raise ValueError(f"must be a folder, got {value!r}")
        return value


class Log(_Section):
    """How messages are written."""

    format: Literal["auto", "console", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Environment(EnvSettingsSource):
    """The variables, as pydantic-settings reads them."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """JSON, but for the one word that a list of run tests may be."""
        return value if value == "all" else super().decode_complex_value(field_name, field, value)


class Settings(BaseSettings):
    """All settings of an export. ``Settings.load(path)`` reads them from a file and the environment."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, allow_inf_nan=False
    )

    run_tests: Annotated[tuple[RunTest, ...], BeforeValidator(_run_tests)]
    """Empty: "all", discovered at each run."""
    api: Api = Api()
    export: Export = Export()
    destination: Destination = Destination()
    log: Log = Log()
    api_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    """None: they were not asked for. Nothing that talks to the API works without them."""
    _is_part: bool = False
    _since: date | None = None

    @property
    def is_part(self) -> bool:
        """Whether they name only some of the run tests that are configured."""
        return self._is_part

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 this and the following: the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the caller gives: ``load`` reads file and environment itself, to know which of them to blame."""
        return (init_settings,)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        _refuse_shared_keys(self.run_tests)
        return self

    def only(self, names: Collection[str] = (), *, since: date | None = None) -> "Settings":
        """The same settings for some of the run tests, by name or key, and from another day on; all when none is named.

        Of "all" only the API knows what they are called: there a name is taken as it is.

        Raises:
            ConfigurationError: a name that is not configured.
        """
        if not self.run_tests:
            chosen = list(self.naming(dict.fromkeys(names)).run_tests)
        else:
            known = {label for run_test in self.run_tests for label in (run_test.name, run_test.key)}
            for name in names:
                if name not in known:
                    raise ConfigurationError(f"--run-test {name!r} is not in run_tests{nearest(name, known)}")
            chosen = [test for test in self.run_tests if not names or test.name in names or test.key in names]
        if since is not None:
            chosen = [test.model_copy(update={"since": since}) for test in chosen]
        result = self.model_copy(update={"run_tests": tuple(chosen)})
        is_part = len(chosen) < len(self.run_tests) or (not self.run_tests and bool(names))
        result._is_part = self._is_part or is_part  # noqa: SLF001 - the copy is of this class
        result._since = since  # noqa: SLF001 - as above
        return result

    def naming(self, names: Iterable[str]) -> "Settings":
        """The same settings with these run tests in place of "all".

        Raises:
            ConfigurationError: one is no name, or two have one key.
        """
        try:
            run_tests = tuple(RunTest.model_validate({"name": name, "since": self._since}) for name in names)
            _refuse_shared_keys(run_tests)
        except ValidationError as exc:
            raise ConfigurationError(f"{exc.errors()[0]['input']!r} cannot be the name of a run test") from None
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None
        return self.model_copy(update={"run_tests": run_tests})

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, needs_keys: bool = True, needs_run_tests: bool = True
    ) -> "Settings":
        """Read the TOML file and what the environment overrides; the keys only if they are needed.

        ``path`` defaults to ``METRICS_ETL_CONFIG``, else ``config/metrics-etl.toml``. Without a file the environment must hold
        ``METRICS_ETL_RUN_TESTS``, ``all`` or a JSON list. Where run tests are not needed, neither is a file, and ``run_tests``
        that are not given are "all".

        Raises:
            ConfigurationError: one line that names file or variable, key and mend.
        """
        file = Path(path or os.environ.get(f"{ENV_PREFIX}CONFIG") or DEFAULT_PATH)
        _refuse_unknown_variables(cls)
        may_be_absent = path is None and (f"{ENV_PREFIX}RUN_TESTS" in os.environ or not needs_run_tests)
        from_file = _from_file(cls, file, may_be_absent=may_be_absent)
        try:
            from_environment = Environment(cls)()
        except SettingsError as exc:
            raise ConfigurationError(f"environment: {exc}: give JSON there") from None
        from_environment = {name: value for name, value in from_environment.items() if name not in _SECRETS}
        if base_url := os.environ.get(BASE_URL):
            from_environment = _merged({"api": {"base_url": base_url}}, from_environment)
        secrets = {name: _secret(variable) for name, variable in _SECRETS.items()} if needs_keys else {}
        values = ({} if needs_run_tests else {"run_tests": "all"}) | _merged(from_file, from_environment) | secrets
        try:
            return cls.model_validate(values)
        except ValidationError as exc:
            raise ConfigurationError(first_mistake(cls, exc, file, from_environment)) from None


def _refuse_shared_keys(run_tests: Collection[RunTest]) -> None:
    names: dict[str, str] = {}
    for run_test in run_tests:
        other = names.setdefault(run_test.key, run_test.name)
        if other != run_test.name:
            raise ValueError(
                f"run_tests {other!r} and {run_test.name!r} share the key {run_test.key!r}: give one another key"
            )
    if len(names) < len(run_tests):
        repeated = next(test.name for test in run_tests if [each.key for each in run_tests].count(test.key) > 1)
        raise ValueError(f"run_tests names {repeated!r} twice: name it once")


def _from_file(cls: type[BaseSettings], file: Path, *, may_be_absent: bool) -> dict[str, Any]:
    if not file.is_file():
        if may_be_absent:
            return {}
        raise ConfigurationError(
            f"{file}: not found: copy config/example.toml there, or name another file with --config"
        )
    try:
        values = TomlConfigSettingsSource(cls, file)()
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{file}: not valid TOML: {exc}") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{file}: cannot be read: {exc}") from None
    for section, keys in [
        ("", values),
        *((f"[{name}] ", keys) for name, keys in values.items() if isinstance(keys, dict)),
    ]:
        for name in keys:
            if name.lower().removeprefix("fi_") in _SECRETS:
                variable = _SECRETS[name.lower().removeprefix("fi_")]
                raise ConfigurationError(
                    f"{file}: {section}{name}: a key must not stand in a file that is copied and committed: "
                    f"set {variable} or {variable}_FILE"
                )
    return values


def _refuse_unknown_variables(cls: type[BaseSettings]) -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in cls.model_fields if name not in _SECRETS} | {
        f"{ENV_PREFIX}CONFIG"
    }
    for variable in os.environ:
        name = variable.upper().split("__")[0]
        if name.startswith(ENV_PREFIX) and name not in known:
            raise ConfigurationError(f"environment: unknown variable {variable}{nearest(name, known)}")


def _secret(variable: str) -> SecretStr:
    """The key that the variable holds, or the file that ``<variable>_FILE`` names."""
    value, where = os.environ.get(variable), variable
    if not value and (path := os.environ.get(f"{variable}_FILE")):
        where = f"{variable}_FILE ({path})"
        try:
            with Path(path).open(encoding="utf-8") as file:
                if _is_open_to_others(os.fstat(file.fileno())):
                    raise ConfigurationError(f"{where}: others can read it: chmod 600 {path}")
                value = file.read()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"{where}: cannot be read: {getattr(exc, 'strerror', 'not text')}") from None
    key = (value or "").strip()
    if not key:
        raise ConfigurationError(f"no key: set {variable}, or {variable}_FILE to the path of a file that holds it")
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"{where}: holds a character that a key cannot have: copy it again")
    return SecretStr(key)


def _is_open_to_others(found: os.stat_result) -> bool:
    # Kubernetes with fsGroup, and systemd with an access list, let us read a file of root's in a way that shows as the group's.
    allowed = stat.S_IRGRP if found.st_uid == 0 and os.geteuid() != 0 else 0
    return bool(stat.S_IMODE(found.st_mode) & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        result[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
