"""What formats in INT8 share: calibration images, and the search for layers to keep in float."""
