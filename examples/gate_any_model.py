"""Gate an ONNX classifier of any origin: `python gate_any_model.py MODEL.onnx IMAGES GATE.toml [BASELINE.onnx]`.

IMAGES is a folder that holds CLASS/*.jpg, or a CSV file with the columns path and label. No torch is needed.
"""

from __future__ import annotations

import sys

import ecd_deploy
from ecd_deploy.errors import EcdDeployError

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}


def main(model: str, images: str, config: str, baseline: str | None = None) -> int:
    """Evaluate and time the model, hold it against the limits."""
    try:
        report = ecd_deploy.gate(model, data=images, config=config, baseline=baseline, out="gate")
    except EcdDeployError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for check in report.checks:
        print(f"{check.verdict:12} {check.name}: {check.reason}")
    print(f"{report.verdict}: {report.basis}")
    return EXIT_CODES[report.verdict]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
