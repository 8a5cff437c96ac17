"""`perf-middleware doctor`: whether what is measured here is what happened, and whether the store is fit for it.

Each check is a file beside this one; what it says, and what it takes for a failure, is in docs/doctor.md. With
`--privacy` nothing but the canaries is looked at.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from perf_middleware.cli import FAILED
from perf_middleware.doctor import diagnose

if TYPE_CHECKING:
    import argparse

    from perf_middleware.cli.doctor.checks import Check

SCHEMA: Final = 1


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the arguments."""
    parser = subparsers.add_parser(
        "doctor",
        help="whether drivers, store and clock are as they should be",
        description="Sends known statements by each installed driver and compares what was counted; looks at the "
        "store, the clock, the uninstalling and other tools' patches.",
        epilog="Exit code: 0 fine, also with warnings; 1 when a check failed; 2 for a mistake.",
    )
    parser.add_argument(
        "--database",
        metavar="URL",
        action="append",
        default=[],
        help="mysql://USER:PASSWORD@HOST/DATABASE or postgresql://...: a temporary table is made and dropped there "
        "(may be given several times; SQLite is looked at in memory)",
    )
    parser.add_argument("--store", metavar="URL", help="the store to look at (default: PERF_MIDDLEWARE_STORE)")
    parser.add_argument(
        "--privacy", action="store_true", help="plant canaries in requests and look for them in everything written"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="json: one object with every check")


def run(args: argparse.Namespace) -> int:
    """Look at everything, print it; 1 when a check failed.

    Raises:
        DatabaseError: When a `--database` is not accepted.
        OptionError: When the store's URL, or an option in the environment, is not accepted.

    """
    store = args.store or os.environ.get("PERF_MIDDLEWARE_STORE") or "memory://"
    checks = _privacy(args.database, store) if args.privacy else _health(args.database, store)
    if args.format == "json":
        document = {"schema": SCHEMA, "failed": _failed(checks), "checks": checks, "process": diagnose()}
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        from perf_middleware.cli.doctor import screen  # noqa: PLC0415 - rich is an extra

        screen.show(checks)
    return FAILED if _failed(checks) else 0


def _health(databases: list[str], store: str) -> list[Check]:
    from perf_middleware.cli.doctor import clock, drivers, stores  # noqa: PLC0415 - what the other half needs not

    prefix = os.environ.get("PERF_MIDDLEWARE_REDIS_PREFIX", "pm1")
    found = stores.check(store, prefix)  # first: a mistake in its URL is said before anything runs
    with drivers.recording():
        return [*drivers.visit_all(databases), clock.check(), *found]


def _privacy(databases: list[str], store: str) -> list[Check]:
    from perf_middleware.cli.doctor import privacy  # noqa: PLC0415

    return privacy.check(databases, store)


def _failed(checks: list[Check]) -> bool:
    return any(check.outcome == "failed" for check in checks)
