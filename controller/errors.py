"""Every exception that the product raises on purpose, so that a caller can tell its own bug from bad
input.

Nothing here imports anything of ours: `controller.metrics`, `controller.policies` and the rest subclass
these.

    RlScalerError
      x  SettingsError            a flag or environment variable has a value that is not allowed
      x  SpecError                an RLScaler that the operator cannot act upon
      +  MetricsError             reading Prometheus (controller/metrics subclasses it)
      +  PolicyError              a policy artifact that cannot be used (controller/policies subclasses it)
      +  KubernetesError          the API server refused, or could not be asked
         x  Unreachable             no answer: connection refused, time-out, TLS
         x  NotLeading              another operator leads, or may do so before the write would be done
         x  Unauthorized            401: credentials missing or expired
         x  Forbidden               403: RBAC lacks a verb
         x  NotFound                404: no such object
            x  KindNotFound           the API server serves no such kind
         x  NotScalable             the kind has no /scale subresource
         x  Conflict                409, or a JSON patch whose `test` failed: somebody wrote first
         x  Gone                    410: the resource version is too old to watch from
         x  Invalid                 400, 422: the API server's validation refused the body
         x  TooManyRequests         429: the server asked us to slow down and the patience ran out
         x  ServerError             5xx, and whatever has no class of its own
"""

from __future__ import annotations


class RlScalerError(Exception):
    """Base of all: `str()` is a sentence fit for a condition's message or a command line."""


class SettingsError(RlScalerError):
    """A setting is wrong: names the setting, the value and what is allowed."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}: {value!r} is not allowed; expected {allowed}")
        self.name = name


class SpecError(RlScalerError):
    """An RLScaler that passed the API server but that the operator cannot act upon."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class MetricsError(RlScalerError):
    """A metrics source cannot be built or read."""


class PolicyError(RlScalerError):
    """A policy artifact cannot be used; subclasses name why and become the condition's reason."""


class KubernetesError(RlScalerError):
    """The API server refused a request, or could not be asked."""

    def __init__(self, message: str, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class Unreachable(KubernetesError):
    """The API server gave no answer in time."""


class NotLeading(KubernetesError):
    """A write that this process may not do, or may not be able to finish, as the leader."""


class Unauthorized(KubernetesError):
    """401."""


class Forbidden(KubernetesError):
    """403: the operator's ServiceAccount lacks a verb; the message says which."""


class NotFound(KubernetesError):
    """404: no such object."""


class KindNotFound(NotFound):
    """The API server serves no such apiVersion and kind."""


class NotScalable(KubernetesError):
    """The kind exists but has no /scale subresource."""


class Conflict(KubernetesError):
    """409, or a JSON patch whose `test` failed: somebody else wrote since we read."""


class Gone(KubernetesError):
    """410: the resource version is too old."""


class Invalid(KubernetesError):
    """400 or 422: the API server's validation refused the body."""


class TooManyRequests(KubernetesError):
    """429 for longer than we wait; `retry_after_s` is what the server asked for."""


class ServerError(KubernetesError):
    """5xx, and any status without a class of its own."""


_BY_STATUS: dict[int, type[KubernetesError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def kubernetes_error(status: int, message: str, retry_after_s: float = 0.0) -> KubernetesError:
    """The exception for an HTTP status of the API server."""
    return _BY_STATUS.get(status, ServerError)(message, status, retry_after_s)
