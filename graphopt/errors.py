"""Every error graphopt raises on purpose: what happened, where, and what to do about it.

A :class:`GraphoptError` is the user's to fix (or the environment's) and the command line prints it without a
traceback. Anything else that escapes is a bug of ours, and is shown as one.

========  =====================================================================================
exit      meaning
========  =====================================================================================
0         done
1         a bug in graphopt
2         wrong usage: an option, a pass name or a combination that makes no sense
3         the input model (or its data) cannot be read or is invalid
4         the output cannot be written; what was there before is untouched
5         the models are not equivalent, or verification failed under ``--strict``
6         unproven: ONNX Runtime cannot run the original, so only exact passes were applied
7         a limit was reached: verification or folding ran out of its time or memory
8         the environment lacks something: an execution provider, an extra, a working onnxruntime
9         the goal cannot be reached: the error says how far it goes
10        a safety gate failed: the result does harm beyond a limit that was set
130       interrupted, or told to end
========  =====================================================================================
"""

from __future__ import annotations

import enum
from typing import ClassVar

__all__ = [
    "EnvironmentProblem",
    "ExitCode",
    "GraphoptError",
    "Harmful",
    "Infeasible",
    "LimitReached",
    "ModelError",
    "NotEquivalent",
    "SaveError",
    "UsageError",
]


class ExitCode(enum.IntEnum):
    """The documented process exit codes."""

    OK = 0
    BUG = 1
    USAGE = 2
    MODEL = 3
    SAVE = 4
    NOT_EQUIVALENT = 5
    UNPROVEN = 6
    LIMIT = 7
    ENVIRONMENT = 8
    INFEASIBLE = 9
    HARMFUL = 10
    INTERRUPTED = 130


class GraphoptError(Exception):
    """Base of all errors a user can act on.

    Args:
        message: What happened and where (the file, node or value by name).
        hint: What to do about it; empty when there is nothing useful to say.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[GraphoptError], message: str, hint: str) -> GraphoptError:
    return kind(message, hint=hint)


class UsageError(GraphoptError):
    """An option, name or combination of options that cannot be honoured."""

    exit_code = ExitCode.USAGE


class ModelError(GraphoptError):
    """The model, its external data or the user's feeds cannot be read or are invalid."""

    exit_code = ExitCode.MODEL


class SaveError(GraphoptError):
    """The result cannot be written. Files that were there before are untouched."""

    exit_code = ExitCode.SAVE


class NotEquivalent(GraphoptError):
    """Two models that should do the same job do not."""

    exit_code = ExitCode.NOT_EQUIVALENT


class LimitReached(GraphoptError):
    """A time or memory limit ran out."""

    exit_code = ExitCode.LIMIT


class EnvironmentProblem(GraphoptError):
    """Something that must be installed or present is not: a provider, an extra, a device."""

    exit_code = ExitCode.ENVIRONMENT


class Infeasible(GraphoptError):
    """No choice within the limits reaches the goal."""

    exit_code = ExitCode.INFEASIBLE


class Harmful(GraphoptError):
    """A result does more harm than a safety gate allows."""

    exit_code = ExitCode.HARMFUL
