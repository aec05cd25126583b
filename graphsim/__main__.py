"""`python -m graphsim` is the same as `graphsim`."""

import sys

from graphsim.cli import main

sys.exit(main())
