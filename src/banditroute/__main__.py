"""Run the command line: ``python -m banditroute``."""

import sys

from banditroute.cli import main

sys.exit(main())
