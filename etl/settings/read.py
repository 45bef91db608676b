"""Read the settings from a TOML file and from the environment, which overrides the file. Keys never come from the file.

Each mistake becomes a line that names the place and the fix, and all are reported at once. Keys are ``SecretStr``: no
message, log or repr shows them.
"""

import json
import os
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationError, ValidationInfo, model_validator
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
_LIST = '["Checkout flow", "Refunds, late"]'
_NO_RUN_TESTS = f"is not valid JSON. Give a name, names joined by commas, or a list such as {_LIST}"
_KEYS = {"api_key": "FI_API_KEY", "secret_key": "FI_SECRET_KEY"}
_SECRETS = _KEYS | {"proxy_user": "FI_PROXY_USER", "proxy_password": "FI_PROXY_PASSWORD"}
"""By field of the settings, the environment variable of each secret."""
_KEYS_OF_API = _SECRETS | {"key": "FI_API_KEY", "secret": "FI_SECRET_KEY"}
"""As above, with the names that the keys may be given in the section of the API."""


def _run_tests(value: Any) -> Any:
    """The run tests as given; none of them for "all"."""
    if value == "all":
        return ()
    if value in ([], ()):
        raise ValueError('must be "all" or name at least one run test')
    return value


def _with_first_days(run_tests: tuple[RunTest, ...], others: ValidationInfo) -> tuple[RunTest, ...]:
    """The run tests, each with the day of ``[export]`` unless it has one of its own."""
    export = others.data.get("export", Export())
    return tuple(run_test.model_copy(update={"since": run_test.since or export.since}) for run_test in run_tests)


_TOML_HINTS = {
    "Invalid value": '. Write "text", 2026-01-31, true or false',
    "Cannot ": ". Write each section and each key once",
    "Illegal character": ". Text ends with a quote on the line on which it begins",
    "Expected newline": ". Write one key on each line, and only dates that exist",
}
"""What helps, by how the message of ``tomllib`` begins."""


class Environment(EnvSettingsSource):
    """The settings that environment variables hold, by section and key. A call of it gives them."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """The value of a variable that does not hold a plain text, from its JSON.

        Run tests and columns to leave out may also be names joined by commas, and run tests the word "all".

        Raises:
            ConfigurationError: it is not JSON.
        """
        if field_name in ("run_tests", "leave_out") and not value.startswith(("[", '"')):
            return "all" if value.strip() == "all" else [name.strip() for name in value.split(",")]
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            variables = (name for name, text in self.env_vars.items() if text == value and name.endswith(field_name))
            hint = _NO_RUN_TESTS if field_name == "run_tests" else IS_SECTION
            raise ConfigurationError(f"environment: {next(variables).upper()} {hint}") from None


class Settings(ShownInLines, BaseSettings):
    """All settings of an export. ``Settings.load(path)`` reads them from a file and the environment.

    Frozen: what would change them returns other settings.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, allow_inf_nan=False
    )

    export: Export = Export()
    run_tests: Annotated[tuple[RunTest, ...], BeforeValidator(_run_tests), AfterValidator(_with_first_days)]
    """The run tests to export; empty for "all", which are discovered at each run."""
    api: Api = Api()
    engine: Engine = Engine()
    destination: Destination = Destination()
    warehouse: WarehouseSettings = WarehouseSettings()
    compare: Compare = Compare()
    notify: Notification = Notification()
    report: ReportSettings = ReportSettings()
    log: Log = Log()
    api_key: SecretStr | None = None
    """None if the keys were not needed when the settings were loaded; the API refuses requests without them."""
    secret_key: SecretStr | None = None
    """As ``api_key``."""
    proxy_user: SecretStr | None = None
    """None if there is no proxy, or it needs no credentials."""
    proxy_password: SecretStr | None = None
    """As ``proxy_user``."""
    _configured: tuple[RunTest, ...] | None = None
    """The run tests before ``only`` narrowed them; None if it did not."""
    _since: date | None = None
    """The day given to ``only``."""

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
        """The configured run tests, their keys and first days, as text to compare: what "complete" is about."""
        fields = sorted((run_test.name, run_test.key, str(run_test.since or "")) for run_test in self.configured)
        every = f"all since {self.export.since}" if self.export.since else "all"
        return json.dumps(fields, ensure_ascii=False) if fields else every

    @property
    def since(self) -> date | None:
        """The day given to ``only``; None if each run test keeps its own."""
        return self._since

    def lines(self) -> Iterator[tuple[str, str]]:
        """What is exported, from where and to where; never a key."""
        yield "run tests", first_few([run_test.name for run_test in self.run_tests], shown=6) or "all"
        yield "API", f"{self.api.base_url}, {'with' if self.api_key and self.secret_key else 'without'} keys"
        yield "dataset", self.destination.path
        if self.warehouse.place:
            yield "warehouse", self.warehouse.place

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the values that are passed in.

        ``load`` reads the file and the environment itself, so that a message can name the source of a mistake.
        """
        return (sources["init_settings"],)

    @model_validator(mode="after")
    def _refuse_clashes(self) -> Self:
        _refuse_shared_keys(self.run_tests)
        _refuse_warehouse_in_tables(self.warehouse.url or "", self.destination.path)
        return self

    def only(self, names: str | Collection[str] = (), *, since: date | str | None = None) -> "Settings":
        """These settings for only some run tests, by name or key, and only executions since a day.

        The day may be text, such as ``7d``. With ``run_tests = "all"``, names are not checked, since only the API
        knows them.

        Raises:
            ConfigurationError: a name is not configured, or the day is invalid or in the future.
        """
        names = [names] if isinstance(names, str) else names
        day = _day_to_begin_at(since)
        run_tests = self._run_tests_named(names)
        if day is not None:
            run_tests = [run_test.model_copy(update={"since": day}) for run_test in run_tests]
        narrowed = self.model_copy(update={"run_tests": tuple(run_tests)})
        if len(run_tests) != len(self.run_tests) or day is not None:
            narrowed._configured = self.configured  # noqa: SLF001 - the copy is of this class
        narrowed._since = day  # noqa: SLF001 - as above
        return narrowed

    def _run_tests_named(self, names: Collection[str]) -> Collection[RunTest]:
        """The run tests with these names or keys, or all of these settings if no name is given.

        Raises:
            ConfigurationError: a name is not configured; if all are, it is no possible name.
        """
        if not self.run_tests:
            return self.with_run_tests(dict.fromkeys(names)).run_tests
        keys = {run_test.name: run_test.key for run_test in self.run_tests}
        for name in names:
            if name not in keys and name not in keys.values():
                raise ConfigurationError(f"--run-test {quoted(name)} is not in run_tests. {nearest(name, keys)}")
        return [test for test in self.run_tests if not names or test.name in names or test.key in names]

    def with_run_tests(self, names: Iterable[str]) -> "Settings":
        """These settings with these run tests in place of "all", each with the day given to ``only`` or the settings.

        Raises:
            ConfigurationError: a name that no run test can have, or two names with the same key.
        """
        try:
            run_tests = tuple(RunTest(name=name, since=self._since or self.export.since) for name in names)
            _refuse_shared_keys(run_tests)
        except ValidationError as exc:
            given = exc.errors()[0]["input"]
            name = given["name"] if isinstance(given, dict) else given
            raise ConfigurationError(f"{name!r} cannot be the name of a run test") from None
        except ValueError as exc:
            raise ConfigurationError(str(exc)) from None
        return self.model_copy(update={"run_tests": run_tests})

    @classmethod
    def of(cls, settings: "Settings | str | Path | None") -> "Settings":
        """The settings as given, or those that ``load`` reads from the path. Raises as ``load`` does."""
        return settings if isinstance(settings, Settings) else cls.load(settings)

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, needs_keys: bool = True, needs_run_tests: bool = True, text: str = ""
    ) -> "Settings":
        """Read the settings from the TOML file and the environment, which overrides the file.

        ``path`` defaults to ``METRICS_ETL_CONFIG``, else to ``config/metrics-etl.toml``. Without a ``path``, the file
        may be missing if ``METRICS_ETL_RUN_TESTS`` is set (to ``all``, names joined by commas, or a JSON list), or if
        run tests are not needed; they are then "all". Keys are read only if they are needed. ``text`` stands in for a
        file that is not written yet.

        Raises:
            ConfigurationError: the message has one line per mistake, with the file or variable, the key and the fix.
        """
        file = Path(path or os.environ.get(f"{ENV_PREFIX}CONFIG") or DEFAULT_PATH)
        may_be_missing = path is None and (f"{ENV_PREFIX}RUN_TESTS" in os.environ or not needs_run_tests)
        from_file = _read_file(file, text, may_be_missing=may_be_missing)
        from_environment = {name: value for name, value in Environment(cls)().items() if name not in _SECRETS}
        if base_url := os.environ.get(BASE_URL):
            from_environment = _merged({"api": {"base_url": base_url}}, from_environment)
        mistakes = [*_unknown_variables(cls), *_without_secrets(from_file, file)]
        # Merged with the environment's section, such a value would go unseen.
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
            raise ConfigurationError("\n".join(dict.fromkeys(mistakes)))
        has_proxy = needs_keys and settings.api.proxy is not None
        return settings.model_copy(update=read_proxy_credentials()) if has_proxy else settings


def _day_to_begin_at(since: date | str | None) -> date | None:
    """The day that ``only`` was given, which may be text."""
    if since is None:
        return None
    day = day_of(since, datetime.now(UTC).date())
    if day is None:
        raise ConfigurationError(f"since must be a date {A_DAY}, got {since!r}")
    try:
        return refuse_day_to_come(day)
    except ValueError as exc:
        raise ConfigurationError(f"--since {exc}") from None


def _refuse_shared_keys(run_tests: Collection[RunTest]) -> None:
    """Raise a ValueError if two run tests would share a folder, or one is named twice."""
    names: dict[str, str] = {}
    for run_test in run_tests:
        other = names.setdefault(run_test.key, run_test.name)
        if other != run_test.name:
            raise ValueError(f"run_tests {other!r} and {run_test.name!r} share the key {run_test.key!r}. Change one")
    for name, count in Counter(run_test.name for run_test in run_tests).items():
        if count > 1:
            raise ValueError(f"run_tests names {name!r} twice. Name it once")


def _refuse_warehouse_in_tables(url: str, dataset: str) -> None:
    """Raise a ValueError if the warehouse is a file or folder where readers of the dataset take it for rows."""
    place = url.partition("://")[2] if scheme_of(url) in IN_FILES else url.removeprefix("delta+")
    root = f"{dataset.rstrip('/')}/"
    folder = place.removeprefix(root).partition("/")[0] if place.startswith(root) else ""
    if folder in (*schema.TABLES, "_state"):
        raise ValueError(f"[warehouse] url is inside the dataset's folder {folder!r}. Choose a place outside it")


def _read_file(file: Path, text: str, *, may_be_missing: bool) -> dict[str, Any]:
    """What the TOML file holds, or ``text`` in its place; empty if it is missing and may be.

    Raises:
        ConfigurationError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(text or file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if may_be_missing:
            return {}
        place = "" if file.is_absolute() else f" (looked for in {Path.cwd()})"
        raise ConfigurationError(
            f"{file} was not found{place}. Write one with metrics-etl init, or name another with --config"
        ) from None
    except tomllib.TOMLDecodeError as exc:
        hint = next((hint for start, hint in _TOML_HINTS.items() if str(exc).startswith(start)), "")
        raise ConfigurationError(f"{file} is not valid TOML: {exc}{hint}") from None
    except (OSError, UnicodeDecodeError) as exc:
        reason = "it is a folder, not a settings file" if file.is_dir() else getattr(exc, "strerror", exc)
        raise ConfigurationError(f"{file} cannot be read: {reason}") from None


def _without_secrets(values: dict[str, Any], file: Path) -> Iterator[str]:
    """Remove keys and credentials from the values of the file, and give a line for each mistake of this kind."""
    sections = [(f"[{name}] ", keys) for name, keys in values.items() if isinstance(keys, dict)]
    for section, keys in [("", values), *sections]:
        for name in [*keys]:
            if variable := (_KEYS_OF_API if section == "[api] " else _SECRETS).get(name.lower().removeprefix("fi_")):
                del keys[name]
                yield f"{file}: {section}{name} does not belong in this file. Set {variable} or {variable}_FILE"


def _unknown_variables(cls: type[BaseSettings]) -> Iterator[str]:
    """A line for each environment variable that begins like a setting and is none."""
    known = {variable_of(*place) for place in (*setting_places(cls), ("config",))}
    for variable in os.environ:
        name = variable.upper()
        if name.startswith(ENV_PREFIX) and name.split("__")[0] not in known:
            secret = _SECRETS.get(name.removeprefix(ENV_PREFIX).lower())
            hint = f"Did you mean {quoted(secret)}?" if secret else nearest(name, known)
            yield f"environment: {variable} is unknown. {hint}"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, section by section; if both have a value, that of ``above``."""
    merged = dict(below)
    for name, value in above.items():
        section = merged.get(name)
        merged[name] = _merged(section, value) if isinstance(section, dict) and isinstance(value, dict) else value
    return merged
