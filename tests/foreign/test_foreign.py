"""Nobody notices us: with us on, no test of another project newly fails.

A part of the long suites is run every time; `scripts/test --all` runs all of them whole.
"""

from __future__ import annotations

import json
from contextlib import closing

import pymysql
import pytest
from foreign_suites import by_cpython, by_django, by_pytest

OUR_HEADERS = "compares the whole answer, where our headers are because this run asked for them"
COLLECTS = "fails without us too when the garbage collector runs a moment earlier, as with gc.set_threshold(500)"
TYPE = "asks that type(connection) be sqlite3.Connection itself: the type is C's, and only a subclass of it sees calls"
WARNS = "asks which file a warning names: it is that of the nearest Python frame, which is our hook's"


def shortened(part, whole):
    """Run the part every time, and the whole with `--all`."""
    return pytest.mark.parametrize(
        "tests",
        [
            pytest.param(part, id="part", marks=pytest.mark.part),
            pytest.param(whole, id="whole", marks=pytest.mark.whole),
        ],
    )


def test_cpython_does_not_notice_us_in_sqlite3(nothing_newly_fails):
    faults = {
        "sqlite3: a factory that is no class of sqlite3's: TypeError": "some tests give functions, which are left alone"
    }
    exceptions = {
        "test_dbapi.py::OpenTests::test_database_keyword": TYPE,
        # Of CPython 3.12 and 3.13.
        "test_dbapi.py::ConnectionTests::test_connect_positional_arguments": WARNS,
        "test_dbapi.py::CursorTests::test_execute_named_param_and_sequence": WARNS,
        "test_types.py::DateTimeTests::test_sqlite_date": WARNS,
        "test_types.py::DateTimeTests::test_sqlite_timestamp": WARNS,
    }
    suite = by_cpython("test_sqlite3", blocks=True, exceptions=exceptions, faults=faults)
    nothing_newly_fails(suite, ["."], sees="query")


def test_cpython_does_not_notice_us_in_wsgiref(nothing_newly_fails):
    handlers = ("BasicErrorOutput", "BytesData", "ContentLength", "ErrorAfterOutput", "HeaderFormats", "PartialWrite")
    servers = ("bytes_validation", "cp1252_url", "plain_hello", "validated_hello")
    names = [f"HandlerTests::test{name}" for name in handlers] + [f"IntegrationTests::test_{name}" for name in servers]
    by_headers = {f"test_wsgiref.py::{name}": OUR_HEADERS for name in names}
    nothing_newly_fails(by_cpython("test_wsgiref", by_headers=by_headers), ["test_wsgiref.py"], sees="request")


@shortened(["tests/middleware", "tests/test_requests.py", "tests/test_responses.py"], ["tests"])
def test_starlette_does_not_notice_us(nothing_newly_fails, tests):
    nothing_newly_fails(by_pytest("starlette", "-p", "anyio"), tests, sees="request")


@shortened(["tests/test_wsgi.py", "tests/test_test.py", "tests/test_wrappers.py"], ["tests"])
def test_werkzeug_does_not_notice_us(nothing_newly_fails, tests):
    flags = [f"{one}-{other}" for one in (True, False) for other in (True, False)]
    names = [
        *(f"test_run_wsgi_apps[{flag}]" for flag in flags),
        *(f"test_lazy_start_response_empty_response_app[{flag}]" for flag in flags),
        "test_run_wsgi_app_closing_iterator",
        "test_no_content_type_header_addition",
    ]
    by_headers = {f"tests/test_test.py::{name}": OUR_HEADERS for name in names}
    nothing_newly_fails(by_pytest("werkzeug", by_headers=by_headers), tests, sees="request")


def test_flask_does_not_notice_us(nothing_newly_fails):
    nothing_newly_fails(by_pytest("flask"), ["tests"], sees="request")


@shortened(
    ["handlers", "requests_tests", "wsgi", "test_client"],
    ["handlers", "asgi", "requests_tests", "wsgi", "servers", "test_client", "test_client_regress", "middleware"],
)
def test_django_does_not_notice_our_doors(nothing_newly_fails, tests):
    names = ["file_response", "get_asgi_application", "headers", "static_file_response"]
    by_headers = {f"asgi.tests.ASGITest.test_{name}": OUR_HEADERS for name in names}
    head = "servers.test_basehttp.WSGIRequestHandlerTestCase.test_non_zero_content_length_set_head_request"
    by_headers[head] = OUR_HEADERS
    exceptions = {
        "wsgi.tests.WSGITest.test_get_wsgi_application": "wants bytes() of the answer, which no server asks of a body"
    }
    suite = by_django("Django, doors", by_headers=by_headers, exceptions=exceptions)
    nothing_newly_fails(suite, tests, sees="request")


@shortened(
    ["backends", "transactions"], ["backends", "transactions", "transaction_hooks", "queries", "basic", "bulk_create"]
)
def test_django_does_not_notice_us_in_sqlite3(nothing_newly_fails, tests):
    nothing_newly_fails(by_django("Django, SQLite", blocks=True), tests, sees="query")


@pytest.mark.whole
def test_django_does_not_notice_us_in_pymysql(nothing_newly_fails, mariadb):
    database = {"USER": mariadb.user, "PASSWORD": mariadb.password, "HOST": mariadb.host, "PORT": mariadb.port}
    suite = by_django("Django, MariaDB", blocks=True, environment={"FOREIGN_DATABASE": json.dumps(database)})
    nothing_newly_fails(suite, ["backends", "transactions"], sees="query")


@pytest.mark.whole
def test_sqlalchemy_does_not_notice_us_in_pymysql(nothing_newly_fails, mariadb):
    server = {"host": mariadb.host, "port": mariadb.port, "user": mariadb.user, "password": mariadb.password}
    with closing(pymysql.connect(**server)) as connection, connection.cursor() as cursor:
        for name in ("sqlalchemy", "test_schema"):
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4")
    address = f"{mariadb.user}:{mariadb.password}@{mariadb.host}:{mariadb.port}"
    suite = by_pytest(
        "sqlalchemy",
        *("--dburi", f"mysql+pymysql://{address}/sqlalchemy?charset=utf8mb4"),
        name="SQLAlchemy, MariaDB",
        blocks=True,
    )
    nothing_newly_fails(suite, ["test/dialect/test_suite.py"], sees="query")


@pytest.mark.whole
def test_sqlalchemy_does_not_notice_us_in_sqlite3(nothing_newly_fails):
    cycle = "test/engine/test_pool.py::PoolEventsTest::test_checkin_event_gc_reference_cycle[is_asyncio]"
    suite = by_pytest("sqlalchemy", name="SQLAlchemy, SQLite", blocks=True, exceptions={cycle: COLLECTS})
    nothing_newly_fails(suite, ["test/dialect/test_suite.py", "test/dialect/sqlite", "test/engine"], sees="query")
