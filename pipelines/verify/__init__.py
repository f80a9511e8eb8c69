"""Digests, exports made again, and signatures."""
