"""``python -m lazypagesd.client.ctl`` is the command ``lazypagesctl``."""

from __future__ import annotations

import sys

from lazypagesd.client.ctl.main import main

if __name__ == "__main__":
    sys.exit(main())
