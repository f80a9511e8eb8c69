"""Devices: their budgets, and measuring on them over ssh."""
