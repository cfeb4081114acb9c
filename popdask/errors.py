"""The errors that a user can mend: bad input files and bad settings.

The command line turns an :class:`InputError` into one sentence and exit code 2; anything else is a
failure of the run, exit code 1.
"""


class InputError(ValueError):
    """An input file or a setting is wrong.

    The message is one sentence that names the file or setting, what was found, what was expected,
    and how to mend it.
    """
