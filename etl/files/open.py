"""Which storage a location means. A new kind has its scheme in ``etl/model/locations.py``, and is opened here.

Knows each implementation of ``Files`` and imports it on use; reads and writes nothing itself.
"""

from pathlib import Path

from etl.errors import ConfigurationError, needs_extra
from etl.files.interface import Files
from etl.model.locations import BUCKETS, Options, scheme_of


def open_files(location: str, options: Options | None = None) -> Files:
    """The storage of the dataset at this location: a folder's path, or a bucket's URL. Reads and writes nothing yet.

    ``~`` stands for the user's home. ``options`` are those of ``[destination.options]``; a folder has none.

    Raises:
        ConfigurationError: there is no storage for the location, its package is not installed, or the options do not
            fit.
    """
    scheme = scheme_of(location)
    if scheme is None:
        from etl.files.local import LocalFiles  # noqa: PLC0415 each storage is imported on use

        try:
            return LocalFiles(Path(location).expanduser())
        except RuntimeError:
            raise ConfigurationError(f"{location} names an unknown user. Write the path in full") from None
    if scheme not in BUCKETS:
        schemes = ", ".join(f"{bucket}://" for bucket in BUCKETS)
        raise ConfigurationError(f"{scheme}://… is not supported. Use a folder, or a URL that starts with {schemes}")
    try:
        from etl.files.bucket import BucketFiles  # noqa: PLC0415 as above
    except ModuleNotFoundError as exc:
        raise needs_extra(location.rstrip("/"), "bucket", exc) from None
    return BucketFiles(location, options or {})
