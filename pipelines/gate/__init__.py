"""The gate: each limit against what was measured, and one verdict."""
