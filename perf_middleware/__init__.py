"""perf_middleware: what each request costs in database work, what is wrong, and on which line."""

__version__ = "0.1.0"
