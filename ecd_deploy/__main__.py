"""`python -m ecd_deploy` is the command `ecd-deploy`."""

from __future__ import annotations

from ecd_deploy.cli import main

if __name__ == "__main__":
    main()
