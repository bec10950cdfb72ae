"""The error that a user caused: it ends the command line with one line and exit code 2."""


class PredecodeError(Exception):
    """Bad input. The message is one line: what was given, what was expected, and what to do."""
