"""What the service raises on purpose; the message is for the terminal, or for the answer's `detail`."""

from __future__ import annotations

from controller.errors import RlScalerError


class ServiceError(RlScalerError):
    """Something cannot be done as asked, or set up as configured."""


class NotFound(ServiceError):
    """There is nothing of this name or number."""


class Conflict(ServiceError):
    """What is asked for does not go with the state that things are in."""


class StateError(ServiceError):
    """The state file cannot be read or written."""


class FieldError(ServiceError):
    """One field of a request, or a flag, has a value that is not allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {value!r} is not allowed, must be {allowed}")
        self.field, self.value, self.allowed = field, value, allowed
