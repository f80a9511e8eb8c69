"""What the paper compares ECD with: two-stage losses and ONE."""
