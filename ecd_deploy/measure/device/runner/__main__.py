"""`python -m runner model.onnx`, and in the package for a look at it: `python -m ecd_deploy.measure.device.runner`."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
