"""The errors that a user can mend: bad input files and bad settings, and clusters that are away.

The command line turns an :class:`InputError` into one sentence and exit code 2; anything else is a
failure of the run, exit code 1.
"""


class InputError(ValueError):
    """An input file or a setting is wrong.

    The message is one sentence that names the file or setting, what was found, what was expected,
    and how to mend it. In a notebook it stands alone, without the traceback of what is not wrong.

    Examples
    --------
    >>> import popdask
    >>> popdask.open_frames("pop.tif")
    Traceback (most recent call last):
    popdask.errors.InputError: the pattern 'pop.tif' has no time in it; expected {year} or
    {time:FORMAT} where the files, or the bands behind a #, differ; put it there, or give [input]
    times
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows."""
        return [f"{type(self).__name__}: {self}"]


class ClusterError(RuntimeError):
    """A run has no cluster, or none any more: no fault of the job's, and worth another try.

    The message is one sentence. Its kinds are in `popdask.cluster`.

    Examples
    --------
    >>> raise ClusterError("no worker came within 5 min")
    Traceback (most recent call last):
    popdask.errors.ClusterError: no worker came within 5 min
    """
