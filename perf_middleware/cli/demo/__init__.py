"""`perf-middleware demo`: a small shop on real servers, measured, and what its owner would see."""
