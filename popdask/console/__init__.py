"""What the command line shows: tables of settings, stages, runs and frames, and single lines."""

from popdask.console.lines import complain, out, say, show_table
from popdask.console.outcomes import SHOW, show_outcome, show_scores
from popdask.console.plans import show_following, show_left, show_plan, show_rates
from popdask.console.regions import (
    show_attempt,
    show_attempts,
    show_json,
    show_standings,
    show_status,
)
from popdask.console.runs import show_expired, show_history, show_rollback, show_verified
from popdask.console.search import show_best, show_trial

__all__ = [
    "SHOW",
    "complain",
    "out",
    "say",
    "show_attempt",
    "show_attempts",
    "show_best",
    "show_expired",
    "show_following",
    "show_history",
    "show_json",
    "show_left",
    "show_outcome",
    "show_plan",
    "show_rates",
    "show_rollback",
    "show_scores",
    "show_standings",
    "show_status",
    "show_table",
    "show_trial",
    "show_verified",
]
