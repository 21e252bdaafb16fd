"""``python -m invattn`` is the command ``invattn``."""

import sys

from invattn.cli.main import main

if __name__ == "__main__":  # the processes of a training import this file
    sys.exit(main())
