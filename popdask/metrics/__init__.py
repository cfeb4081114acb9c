"""How right an answer is: scores against a known truth.

`communities` compares communities and their events with true cities, `events` tables of events
with planted ones; `presence` and `counts`
compare estimates from images, cell by cell, with counted people.
"""

from popdask.metrics.communities import (
    EVENTS,
    city_events,
    event_scores,
    label_agreement,
    match_cities,
)
from popdask.metrics.counts import CountScores, count_scores, people_error
from popdask.metrics.events import PlantedScores, planted_scores, visible_events
from popdask.metrics.presence import PresenceScores, presence_scores

__all__ = [
    "EVENTS",
    "CountScores",
    "PlantedScores",
    "PresenceScores",
    "city_events",
    "count_scores",
    "event_scores",
    "label_agreement",
    "match_cities",
    "people_error",
    "planted_scores",
    "presence_scores",
    "visible_events",
]
