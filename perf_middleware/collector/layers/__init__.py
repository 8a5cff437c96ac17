"""Layers over drivers: what they know of a statement, and the statement itself where the driver is not hooked."""
