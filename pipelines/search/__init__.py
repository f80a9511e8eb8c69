"""The search for the smallest student that passes the gate."""
