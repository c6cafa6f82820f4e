"""Decisions and rewards as columns: recorder, readers, writers, exporters."""

from banditroute.logs.exports import to_dsjson, to_obp
from banditroute.logs.recorder import Recorder
from banditroute.logs.trace import Trace

__all__ = ["Recorder", "Trace", "to_dsjson", "to_obp"]
