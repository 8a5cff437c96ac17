"""A PyMySQL without a socket, so that only the hooks and the scheduling are looked at; a barrier forces the overlap."""

from __future__ import annotations

from types import SimpleNamespace

import pymysql
import pytest

OK = SimpleNamespace(
    affected_rows=1, warning_count=0, description=None, insert_id=0, rows=((1,),), field_count=1, has_next=False
)


class Stub(pymysql.connections.Connection):
    """A connection whose server answers every statement with one row; `sent` is what it was asked."""

    def __init__(self):
        super().__init__(defer_connect=True, autocommit=True)
        self.sent = []
        self.server_status = 2  # autocommit
        self.server_version = "stub"
        self._sock = SimpleNamespace(close=lambda: None)

    def _execute_command(self, command, sql):
        self.sent.append(sql.decode())

    def _read_query_result(self, unbuffered=False):  # noqa: FBT002 - PyMySQL's own signature
        self._result = OK
        return OK.affected_rows

    def close(self):
        self._sock = None

    def __del__(self):
        self._sock = None


@pytest.fixture
def stub():
    """The class of connections without a socket."""
    return Stub
