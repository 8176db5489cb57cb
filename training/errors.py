"""What can go wrong in training because of what the user gave, as one small tree.

TrainingError
├── ConfigError      a preset or an argument that cannot be used
├── RunError         a run folder that cannot be opened or resumed
└── ExportError      a model that cannot become an artifact

The command lines print the message alone, without a traceback, and exit with status 2.
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of the errors that a user can mend."""


class ConfigError(TrainingError):
    """A preset or an argument names something that does not exist or holds a value that is not allowed."""


class RunError(TrainingError):
    """A run folder is missing, incomplete, or not one of ours."""


class ExportError(TrainingError):
    """A model does not fit the observation or action schema, or its graph is not equal to it."""
