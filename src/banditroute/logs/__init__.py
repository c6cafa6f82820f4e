"""Decisions and rewards as columns: recorder, readers, writers, importers, exporters."""

from banditroute.logs.exports import to_dsjson, to_obp
from banditroute.logs.importers import from_dsjson, from_litellm, from_obp
from banditroute.logs.recorder import Recorder
from banditroute.logs.scores import Scores
from banditroute.logs.trace import Trace

__all__ = [
    "Recorder",
    "Scores",
    "Trace",
    "from_dsjson",
    "from_litellm",
    "from_obp",
    "to_dsjson",
    "to_obp",
]
