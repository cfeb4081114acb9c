"""How right an answer is: scores against a known truth.

`communities` compares communities and their events with true cities, and tables of events with
planted ones; `estimates` compares estimates from images, cell by cell, with counted people.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "communities": [
            *("EVENTS", "PlantedScores", "city_events", "event_scores", "label_agreement"),
            *("match_cities", "planted_scores", "visible_events"),
        ],
        "estimates": [
            "CountScores",
            "PresenceScores",
            "block_intervals",
            "count_scores",
            "people_error",
            "presence_scores",
        ],
    },
)
