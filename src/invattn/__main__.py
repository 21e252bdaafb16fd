"""``python -m invattn`` is the command ``invattn``."""

import sys

from invattn.cli.main import main

sys.exit(main())
