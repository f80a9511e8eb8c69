"""What runs beside a model on hosts and devices, with numpy and its runtime only: its latency, and a bundle's checks.

This folder is sent to devices and laid into bundles as one archive, `device_runner.pyz`, and copied into the image
`edge`: it knows nothing of the package around it, imports within it are relative, and it runs on Python 3.8 and newer,
for devices are not updated often.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before onnxruntime is imported, here and in every child process
