"""Image files: listed, judged, decoded, and kept decoded."""
