"""Files that are sent to a device and run there, each by itself."""
