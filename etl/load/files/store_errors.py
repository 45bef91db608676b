"""What a store says, in one line that names the place and, where it says enough, the fix."""

import re
from urllib.parse import urlsplit

from etl.errors import DestinationError, FileMissingError

_REGION = "the bucket is in another region: set region in [destination.options]"
_EXPIRED = "the credentials have expired: renew them, and run again"
_CODES = {
    "NoSuchBucket": "no such bucket: create it, or fix [destination] path",
    "ContainerNotFound": "no such container: create it, or fix [destination] path",
    "InvalidAccessKeyId": "the store does not know this access key: check the credentials",
    "SignatureDoesNotMatch": "the secret does not belong to the access key: check the credentials",
    "AuthenticationFailed": "the store refuses the credentials: check them",
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "SlowDown": "the store kept asking for fewer requests: run again later",
}
_OUTAGES = ("SlowDown", "InternalError", "ServiceUnavailable", "ServerBusy", "OperationTimedOut")
_NO_ANSWER = "error sending request"
_PHRASES = {
    "without LOCATION": _REGION,
    "invalid path": "an object there has a name that no file can have: remove it, or give the dataset a folder of its own",
    _NO_ANSWER: "cannot be reached, or is too slow: check the network, and the endpoint",
}
_NO_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service account",
    "az": "set AZURE_STORAGE_ACCOUNT_KEY, or give the machine an identity",
}
_METADATA_ADDRESSES = ("169.254.169.254", "metadata.google.internal")
_QUERY = r"\?\S*"  # of an address: it may hold a signature
_REFUSED = r"403 Forbidden|401 Unauthorized|AccessDenied"


class ConflictError(DestinationError):
    """The object is not, or not any more, what was to be replaced."""


class StoreFailedError(DestinationError):
    """The store gave no answer that tells anything of the object, however often it was asked."""


def no_answer(url: str) -> StoreFailedError:
    """What to raise where the store below the URL was not waited for any longer."""
    return StoreFailedError(f"{url}: {_PHRASES[_NO_ANSWER]}")


def is_cut_off(exc: Exception) -> bool:
    """Whether the store could not be reached, or its answer did not arrive."""
    return _NO_ANSWER in str(exc) and not any(address in str(exc) for address in _METADATA_ADDRESSES)


def error_of(exc: Exception, url: str, path: str, kind: str) -> DestinationError:  # noqa: PLR0911 each is another cause
    """What to raise for what obstore raised, when it was to ``kind`` (get, put, …) the object below the URL."""
    from obstore import exceptions  # noqa: PLC0415

    where = f"{url}/{path}" if path else url
    text = str(exc).split("\n\nDebug source")[0]
    if isinstance(exc, exceptions.AlreadyExistsError | exceptions.PreconditionError):
        return ConflictError(f"{where}: changed by another program since it was read; nothing was lost")
    if any(address in text for address in _METADATA_ADDRESSES):
        return DestinationError(f"{url}: no credentials found: {_NO_CREDENTIALS[urlsplit(url).scheme]}")
    code = re.search(r"<Code>([A-Za-z]+)</Code>", text)
    if code and code[1] in _CODES:
        kind_of_error = StoreFailedError if code[1] in _OUTAGES else DestinationError
        return kind_of_error(f"{url}: {_CODES[code[1]]}")
    for phrase, words in _PHRASES.items():
        if phrase in text:
            kind_of_error = StoreFailedError if phrase == _NO_ANSWER else DestinationError
            return kind_of_error(f"{url}: {words}")
    if isinstance(exc, FileNotFoundError):
        if kind == "put":
            return ConflictError(f"{where}: removed by another program since it was read; nothing was lost")
        return FileMissingError(f"{where}: no such object")
    if re.search(_REFUSED, text):
        return DestinationError(f"{where}: the credentials may not {kind} it: allow that for all objects below {url}")
    if code:
        message = re.search(r"<Message>([^<]*)</Message>", text)
        text = f"the store answers {code[1]}: {message[1] if message else 'it does not say why'}"
    kind_of_error = DestinationError if code and code[1] not in _OUTAGES else StoreFailedError
    return kind_of_error(f"{where}: {re.sub(_QUERY, '', ' '.join(text.split()))[:300]}")
