"""``python -m lazypagesd`` is the command ``lazypagesd``."""

from __future__ import annotations

import sys

from lazypagesd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
