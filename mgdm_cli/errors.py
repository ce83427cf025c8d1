"""What a person can cause: one message, one hint, one exit code.

Anything else that is raised is a bug: it keeps its traceback (in the log) and ends with exit code 1.
"""

from __future__ import annotations

OK, BUG, USAGE, GATE, NEEDS_TRAINING, PARTIAL = 0, 1, 2, 3, 4, 5
BAD_INPUT, MISSING_INPUT, IO_FAILED, IN_USE, OTHER_PLAN = 65, 66, 74, 75, 78
SIGINT, SIGTERM = 130, 143


class MgdmError(Exception):
    """`message` reads "<what>: <file, relative to the input>: <why>"; `hint` says what to do."""

    exit_code: int = BAD_INPUT

    def __init__(self, message: str, hint: str = "", *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(MgdmError):
    """A flag, or a set of flags, that makes no sense."""

    exit_code = USAGE


class GateFailed(MgdmError):
    """Privacy, quality or drift is outside its limit."""

    exit_code = GATE


class NeedsTraining(MgdmError):
    """No model fits and training one was not allowed, or takes longer than the budget. `seconds`: how long, where that is known."""

    exit_code = NEEDS_TRAINING
    seconds: float | None = None


class BadInput(MgdmError):
    """A file or a set of files that cannot be used as it is."""

    exit_code = BAD_INPUT


class MissingInput(MgdmError):
    """An input folder or file that is not there, or holds nothing readable."""

    exit_code = MISSING_INPUT


class IoFailed(MgdmError):
    """Disk full, read-only, quota, EIO."""

    exit_code = IO_FAILED


class FolderInUse(MgdmError):
    """Another process holds the lock of the output folder."""

    exit_code = IN_USE


class OtherPlan(MgdmError):
    """The output folder holds the work of another plan, or of something else."""

    exit_code = OTHER_PLAN


class Interrupted(MgdmError):
    """Stopped by SIGINT (130) or SIGTERM (143); the same command continues."""

    exit_code = SIGTERM
