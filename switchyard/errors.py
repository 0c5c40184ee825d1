"""Every error Switchyard raises on purpose, as one tree.

    SwitchyardError
    |-- SettingsError          a setting is missing, contradictory or out of range
    |-- InputError             what came from outside is wrong: names file, column and row where there is one
    |   |-- SourceError        a file or folder of transactions can't be read as such
    |   |-- RequestError       one API request is wrong (carries the HTTP status and the field)
    |   `-- PlanError          the traffic plan, as it is, can't be changed like that
    |-- StorageError           an object store does not answer, or refuses
    |-- LakeError              a table or day that a step needs is not in the lake
    |-- StoreError             the online store is down, slow or answers something else than it should
    |-- JournalError           a decision could not be written down, or a journal can't be read
    |-- ReleaseError           a release is damaged, unknown, or not computable by this code
    |-- TrainingError          a model can't be trained on what it was given
    |-- SkewError              what was served is not what recomputing gives
    |-- ForgettingError        somebody who was to be forgotten is still named somewhere
    |-- ServiceError           a process that Switchyard owns did not start, answer or stop
    `-- AlertError             a message did not reach its channel

A message says what was wrong, where, and what would be right. Only entry points catch the root.
"""


class SwitchyardError(Exception):
    """Root of the tree: anything that Switchyard raises on purpose."""


class SettingsError(SwitchyardError):
    """A setting is missing, contradictory or out of range."""


class InputError(SwitchyardError):
    """What came from outside is wrong."""


class SourceError(InputError):
    """A file or folder of transactions can't be read as such."""


class RequestError(InputError):
    """One API request is wrong.

    ``status`` is the HTTP status to answer with, ``field`` the offending field (or None),
    ``retry_after_s`` when it is worth trying again, where that is not at once.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 422,
        field: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.retry_after_s = retry_after_s


class PlanError(InputError):
    """The traffic plan, as it is, can't be changed like that."""


class StorageError(SwitchyardError):
    """An object store does not answer, or refuses."""


class LakeError(SwitchyardError):
    """A table or day that a step needs is not in the lake."""


class StoreError(SwitchyardError):
    """The online store is down, slow or answers something else than it should."""


class JournalError(SwitchyardError):
    """A decision could not be written down, or a journal can't be read."""


class ReleaseError(SwitchyardError):
    """A release is damaged, unknown, or not computable by this code."""


class TrainingError(SwitchyardError):
    """A model can't be trained on what it was given."""


class SkewError(SwitchyardError):
    """What was served is not what recomputing gives."""


class ForgettingError(SwitchyardError):
    """Somebody who was to be forgotten is still named somewhere."""


class ServiceError(SwitchyardError):
    """A process that Switchyard owns did not start, answer or stop."""


class AlertError(SwitchyardError):
    """A message did not reach its channel."""
