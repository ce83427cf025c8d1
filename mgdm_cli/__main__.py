"""`python -m mgdm_cli` does what `mgdm` does."""

import sys

from mgdm_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
