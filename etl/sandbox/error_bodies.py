"""The API's error bodies, verbatim. Pure."""

from typing import Any

TEXT_KEYS = ("detail", "message", "error", "result")


def error(kind: str, code: str, text: str, *, has_details: bool = False) -> dict[str, Any]:
    """The body of most errors, with the text in each of four fields."""
    details = {"details": {"detail": [text]}} if has_details else {}
    return {"status": False, "type": kind, "code": code, **dict.fromkeys(TEXT_KEYS, text), **details}


NOT_AUTHENTICATED = error(
    "authentication_error", "not_authenticated", "Authentication credentials were not provided.", has_details=True
)
WRONG_KEY = error("authentication_error", "authentication_failed", "Invalid API key or secret key", has_details=True)
FOREIGN_AUTHORIZATION = error(
    "authentication_error",
    "authentication_failed",
    "Invalid Token parsed: Invalid Token parsed: Invalid token encryption",
    has_details=True,
)
NOT_ACCEPTABLE = error("api_error", "not_acceptable", "Could not satisfy the request Accept header.", has_details=True)


def method_not_allowed(method: str) -> dict[str, Any]:
    """Status 405."""
    return error("api_error", "method_not_allowed", f'Method "{method}" not allowed.', has_details=True)


def not_found(what: str) -> dict[str, Any]:
    """Status 404; ``what`` is "Run test", "Test execution" or "Call execution"."""
    return error("not_found", "not_found", f"{what} not found.")


def server_error(text: str) -> dict[str, Any]:
    """Status 500."""
    return error("server_error", "server_error", text)


def invalid(field: str | None, text: str) -> dict[str, Any]:
    """Status 400: ``text`` says what is wrong with the parameter ``field``, or with the whole query if it is None."""
    details = {field or "non_field_errors": [text]}
    attr = {"attr": field} if field else {}
    body = error("validation_error", "invalid", "Validation failed")
    return {**body, **attr, "details": details, "errors": details}


def refused_field(field: str, code: str, text: str) -> dict[str, Any]:
    """Status 400 of the endpoint that names the field in the text."""
    return {**error("validation_error", code, f"{field}: {text}"), "attr": field, "details": {field: [text]}}


def rate_limited(limit: int, retry_after: int) -> dict[str, Any]:
    """Status 429."""
    message = f"Rate limit exceeded: {limit} api requests per minute"
    return {"status": False, "result": {"code": "RATE_LIMITED", "message": message, "retry_after": retry_after}}
