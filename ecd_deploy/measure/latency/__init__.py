"""What the device runner measures, typed, by layer, and whether it can be compared."""
