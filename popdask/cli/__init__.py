"""The command line, one command per verb of an operator.

Exit codes: 0 done, or nothing to do; 1 the run failed, or results are not what was computed; 2 the
job file or its input is wrong; 75 another run holds the region; 130 and 143 stopped by a signal.
Of many regions: 1 if one failed, else 2 if an input is wrong, else 75 if one was held by another.
"""
