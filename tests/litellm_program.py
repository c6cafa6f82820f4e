"""Where LiteLLM's proxy is, if it is there: looked for, not imported, for that takes seconds."""

import sys
from importlib.util import find_spec
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("litellm")
MISSING = find_spec("litellm") is None or find_spec("apscheduler") is None or not PROGRAM.exists()
REASON = "needs LiteLLM's proxy: pip install 'litellm[proxy]'"
