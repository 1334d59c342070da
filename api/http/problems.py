"""How the HTTP door says no: problem details (RFC 9457), always with a stable ``code`` and ``type``."""

from collections.abc import Mapping

import msgspec

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:guarantee-ledger:problem:"


class Problem(Exception):
    """A request that is answered with an error.  ``code`` is stable; ``detail`` is for people and may change."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.detail = status, code, detail
        self.headers = dict(headers or {})

    def body(self, correlation_id: str) -> bytes:
        """The problem details, as JSON."""
        details = ProblemDetails(
            TYPE_PREFIX + self.code, self.code.replace("_", " ").capitalize(), self.status, self.detail, self.code,
            correlation_id,
        )  # fmt: skip
        return msgspec.json.encode(details)


class ProblemDetails(msgspec.Struct, frozen=True, rename={"kind": "type"}):
    """Why a request was not served (RFC 9457).  Programs read ``code``, the last part of ``type``; people read
    ``detail``."""

    kind: str
    title: str
    status: int
    detail: str
    code: str
    correlation_id: str


CODES: dict[str, tuple[int, str]] = {
    "bad_json": (400, "The body is no JSON."),
    "bad_header": (400, "A header is longer than allowed or holds other characters than visible ASCII."),
    "idempotency_key_missing": (400, "A command needs the header Idempotency-Key."),
    "unauthenticated": (401, "No API key was sent, or one that is unknown or revoked."),
    "not_allowed": (403, "The role of the API key may not do this."),
    "approver_not_allowed": (403, "The Approval-Key is unknown, revoked, or of another role than has to approve."),
    "not_found": (404, "There is no such thing, or it is not yours to see."),
    "method_not_allowed": (405, "The path exists, but not with this method."),
    "body_too_large": (413, "The body is larger than allowed."),
    "unsupported_media_type": (415, "The body is sent in another form than JSON."),
    "invalid_body": (422, "The body is JSON, but not what the route takes."),
    "invalid_parameter": (422, "A part of the path or a query parameter is unknown or malformed."),
    "key_reused": (422, "The idempotency key belongs to another command."),
    "out_of_range": (422, "A number or instant is so large that the rules cannot calculate with it."),
    "internal_error": (500, "A fault of the ledger, not of the request; it is logged under the correlation id."),
    "overloaded": (503, "Too many commands are waiting; nothing was written.  Try again."),
    "try_later": (503, "Others keep writing to the same stream; nothing was written.  Try again."),
    "database_away": (503, "The database cannot be reached.  Whether a command was written shows when it is repeated."),
    "not_built": (503, "The read model was not built yet."),
    "too_busy": (503, "Too many reads of the past are under way.  Try again."),
    "not_reached": (504, "The read model has not reached the position yet; it goes on."),
}
"""Every code that the door gives by itself, with its status.  Rejected commands (409) have their command's codes."""


def problem(code: str, detail: str | None = None, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem of that code; ``detail`` says more than its general description."""
    status, description = CODES[code]
    if code == "unauthenticated":
        headers = {"WWW-Authenticate": 'Bearer realm="guarantee-ledger"', **(headers or {})}
    if status == 503:
        headers = {"Retry-After": "1", **(headers or {})}
    return Problem(status, code, detail or description, headers)


def rejected(code: str) -> Problem:
    """A command that makes no sense as things stand.  Nothing happened; repeated, it is decided afresh."""
    if code == "not_allowed":
        return problem("not_allowed")
    return Problem(409, code, "The command was rejected; nothing happened.")
