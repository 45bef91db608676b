"""Read the settings from a TOML file and the environment, which overrides the file; the keys never come from the TOML file.

Each mistake becomes a line that names the place and the fix; all are told at once. Keys are ``SecretStr``: no message, log or
repr shows them.
"""

import json
import os
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from etl.errors import ConfigurationError
from etl.model import schema
from etl.model.days import A_DAY, day_of
from etl.model.locations import IN_FILES, scheme_of
from etl.model.wording import ShownInLines, first_few, nearest, quoted
from etl.settings.api_keys import read_api_key, read_proxy_credentials
from etl.settings.messages import BASE_URL, ENV_PREFIX, IS_SECTION, mistakes_of, setting_places, variable_of
from etl.settings.paths import whole_paths
from etl.settings.results import Compare, Notification, ReportSettings
from etl.settings.sections import Api, Destination, Engine, Export, Log, RunTest, WarehouseSettings, refuse_day_to_come

DEFAULT_PATH = "config/metrics-etl.toml"
_KEYS = {"api_key": "FI_API_KEY", "secret_key": "FI_SECRET_KEY"}
_SECRETS = _KEYS | {"proxy_user": "FI_PROXY_USER", "proxy_password": "FI_PROXY_PASSWORD"}


def _run_tests(value: Any) -> Any:
    if value == "all":
        return ()
    if value in ([], ()):
        raise ValueError('must be "all" or name at least one run test')
    return value


class Environment(EnvSettingsSource):
    """The settings in environment variables."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """JSON; of run tests also their names, joined by commas, or the word "all"; of calls' address also that as it is."""
        if field_name == "call_url" and not value.startswith("{"):
            return value
        if field_name == "run_tests" and not value.startswith(("[", '"')):
            return "all" if value.strip() == "all" else [name.strip() for name in value.split(",")]
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            names = 'is not valid JSON: give a name, names joined by commas, or a list such as ["Checkout flow", "Refunds, late"]'
            hint = names if field_name == "run_tests" else IS_SECTION
            raise ConfigurationError(f"environment: {variable_of(field_name)} {hint}") from None


class Settings(ShownInLines, BaseSettings):
    """All settings of an export. ``Settings.load(path)`` reads them from a file and the environment."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, allow_inf_nan=False
    )

    run_tests: Annotated[tuple[RunTest, ...], BeforeValidator(_run_tests)]
    """Empty stands for "all": they are discovered at each run."""
    api: Api = Api()
    export: Export = Export()
    engine: Engine = Engine()
    destination: Destination = Destination()
    warehouse: WarehouseSettings = WarehouseSettings()
    compare: Compare = Compare()
    notify: Notification = Notification()
    report: ReportSettings = ReportSettings()
    log: Log = Log()
    api_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    """None if the keys were not needed when the settings were loaded; the API refuses requests without them."""
    proxy_user: SecretStr | None = None
    proxy_password: SecretStr | None = None
    """None if there is no proxy, or it needs no credentials."""
    _configured: tuple[RunTest, ...] | None = None
    _since: date | None = None

    @property
    def configured(self) -> tuple[RunTest, ...]:
        """The run tests in the settings, before ``only``; empty for "all"."""
        return self.run_tests if self._configured is None else self._configured

    @property
    def is_part(self) -> bool:
        """Whether ``only`` narrowed these settings to some run tests, or to executions since a day."""
        return self._configured is not None

    @property
    def scope(self) -> str:
        """The configured run tests and their first days, as text: what "complete" refers to."""
        return scope_of(self.configured)

    @property
    def since(self) -> date | None:
        """The day given to ``only``; None if each run test keeps its own."""
        return self._since

    def lines(self) -> Iterator[tuple[str, str]]:
        """What is exported, from where and to where; never a key."""
        yield "run tests", first_few([each.name for each in self.run_tests], shown=6) or "all"
        yield "API", f"{self.api.base_url}, {'with' if self.api_key and self.secret_key else 'without'} keys"
        yield "dataset", self.destination.path
        if self.warehouse.place:
            yield "warehouse", self.warehouse.place

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the values given: ``load`` reads file and environment itself, so that a message can name the source of a mistake."""
        return (sources["init_settings"],)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        _refuse_shared_keys(self.run_tests)
        _refuse_warehouse_in_tables(self.warehouse.url or "", self.destination.path)
        return self

    def on_dask(self, address: str) -> "Settings":
        """These settings, for a run on the Dask cluster with this scheduler."""
        return self.model_copy(update={"engine": Engine(kind="dask", address=address)})

    def only(self, names: str | Collection[str] = (), *, since: date | str | None = None) -> "Settings":
        """These settings for only some run tests, by name or key, and only executions since a day.

        The day may be text, such as ``7d``. With ``run_tests = "all"``, names are not checked, since only the API knows them.

        Raises:
            ConfigurationError: a name is not configured, or the day is invalid or in the future.
        """
        names = [names] if isinstance(names, str) else names
        given, since = since, day_of(since, datetime.now(UTC).date())
        if given is not None and since is None:
            raise ConfigurationError(f"since {given!r} is not a date: use one {A_DAY}")
        if not self.run_tests:
            chosen = list(self.with_run_tests(dict.fromkeys(names)).run_tests)
        else:
            known = {label for run_test in self.run_tests for label in (run_test.name, run_test.key)}
            for name in names:
                if name not in known:
                    raise ConfigurationError(f"--run-test {quoted(name)} is not in run_tests: {nearest(name, known)}")
            chosen = [test for test in self.run_tests if not names or test.name in names or test.key in names]
        if since is not None:
            try:
                refuse_day_to_come(since)
            except ValueError as exc:
                raise ConfigurationError(f"--since {exc}") from None
            chosen = [test.model_copy(update={"since": since}) for test in chosen]
        result = self.model_copy(update={"run_tests": tuple(chosen)})
        if len(chosen) != len(self.run_tests) or since is not None:
            result._configured = self.configured  # noqa: SLF001 - the copy is of this class
        result._since = since  # noqa: SLF001 - as above
        return result

    def with_run_tests(self, names: Iterable[str]) -> "Settings":
        """These settings with these run tests in place of "all".

        Raises:
            ConfigurationError: an impossible name, or two names with the same key.
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
    def of(cls, settings: "Settings | str | Path | None") -> "Settings":
        """These settings, or those that ``load`` reads from the path."""
        return settings if isinstance(settings, Settings) else cls.load(settings)

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, needs_keys: bool = True, needs_run_tests: bool = True, text: str = ""
    ) -> "Settings":
        """Read the settings from the TOML file and the environment, which overrides the file.

        ``path`` defaults to ``METRICS_ETL_CONFIG``, else to ``config/metrics-etl.toml``. Without a ``path``, the file may be
        missing if ``METRICS_ETL_RUN_TESTS`` is set (to ``all``, names joined by commas, or a JSON list), or if run tests are not
        needed; they are then "all". Keys are read only if they are needed. ``text`` stands in for a file that is not written yet.

        Raises:
            ConfigurationError: one line per mistake, with the file or variable, the key and the fix.
        """
        file = Path(path or os.environ.get(f"{ENV_PREFIX}CONFIG") or DEFAULT_PATH)
        may_be_missing = path is None and (f"{ENV_PREFIX}RUN_TESTS" in os.environ or not needs_run_tests)
        from_file = _read_file(file, text, may_be_missing=may_be_missing)
        from_environment = {name: value for name, value in Environment(cls)().items() if name not in _SECRETS}
        if base_url := os.environ.get(BASE_URL):
            from_environment = _merged({"api": {"base_url": base_url}}, from_environment)
        mistakes = [*_unknown_variables(cls), *_without_secrets(from_file, file)]
        mistakes += (
            f"{file}: {name} {IS_SECTION}"
            for name, value in from_environment.items()
            if isinstance(value, dict) and not isinstance(from_file.get(name, {}), dict)
        )
        from_file, from_environment = whole_paths(from_file, from_environment, file, mistakes)
        secrets: dict[str, SecretStr] = {}
        for name, variable in _KEYS.items() if needs_keys else ():
            try:
                secrets[name] = read_api_key(variable)
            except ConfigurationError as error:
                mistakes.append(str(error))
        values = ({} if needs_run_tests else {"run_tests": "all"}) | _merged(from_file, from_environment) | secrets
        try:
            settings = cls.model_validate(values)
        except ValidationError as exc:
            mistakes += mistakes_of(cls, exc, file, from_environment)
        if mistakes:
            raise ConfigurationError("\n".join(mistakes))
        has_proxy = needs_keys and settings.api.proxy is not None
        return settings.model_copy(update=read_proxy_credentials()) if has_proxy else settings


def scope_of(run_tests: Iterable[RunTest]) -> str:
    """See ``Settings.scope``; no run tests stand for "all"."""
    told = sorted((each.name, each.key, str(each.since or "")) for each in run_tests)
    return json.dumps(told, ensure_ascii=False) if told else "all"


def _refuse_shared_keys(run_tests: Collection[RunTest]) -> None:
    names: dict[str, str] = {}
    for run_test in run_tests:
        other = names.setdefault(run_test.key, run_test.name)
        if other != run_test.name:
            raise ValueError(
                f"run_tests {other!r} and {run_test.name!r} have the same key {run_test.key!r}: give one of them another key"
            )
    repeated = next((name for name, times in Counter(each.name for each in run_tests).items() if times > 1), None)
    if repeated is not None:
        raise ValueError(f"run_tests names {repeated!r} twice: name it once")


def _refuse_warehouse_in_tables(url: str, dataset: str) -> None:
    """Readers of a table take its files for rows. Beside the tables nobody looks."""
    place = url.partition("://")[2] if scheme_of(url) in IN_FILES else url.removeprefix("delta+")
    root = f"{dataset.rstrip('/')}/"
    folder = place.removeprefix(root).partition("/")[0] if place.startswith(root) else ""
    if folder in (*schema.TABLES, "_state"):
        raise ValueError(f"[warehouse] url is inside the dataset's folder {folder}: choose a place outside it")


def _read_file(file: Path, text: str, *, may_be_missing: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(text or file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if may_be_missing:
            return {}
        place = "" if file.is_absolute() else f" (looked for in {Path.cwd()})"
        raise ConfigurationError(
            f"{file}: not found{place}: metrics-etl init writes one; --config names another file"
        ) from None
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{file}: not valid TOML: {exc}") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{file}: cannot be read: {getattr(exc, 'strerror', exc)}") from None


def _without_secrets(values: dict[str, Any], file: Path) -> Iterator[str]:
    """Remove keys and credentials from the values of the file; gives a line for each."""
    sections = [(f"[{name}] ", keys) for name, keys in values.items() if isinstance(keys, dict)]
    for section, keys in [("", values), *sections]:
        for name in [*keys]:
            if variable := _SECRETS.get(name.lower().removeprefix("fi_")):
                del keys[name]
                yield (
                    f"{file}: {section}{name}: keys and credentials must not be in a file that is copied and committed: "
                    f"set {variable} or {variable}_FILE"
                )


def _unknown_variables(cls: type[BaseSettings]) -> Iterator[str]:
    known = {variable_of(*place) for place in (*setting_places(cls), ("config",))}
    for variable in os.environ:
        name = variable.upper()
        if name.startswith(ENV_PREFIX) and name.split("__")[0] not in known:
            secret = _SECRETS.get(name.removeprefix(ENV_PREFIX).lower())
            hint = f"did you mean {quoted(secret)}?" if secret else nearest(name, known)
            yield f"environment: {variable} is unknown: {hint}"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, section by section; where both have a value, that of ``above``."""
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        result[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result
