"""The private PostgreSQL, and what its log says."""

from __future__ import annotations

import psycopg
import pytest


def test_what_one_connection_sent_is_not_another_s_and_a_failed_statement_is_told_once(postgresql):
    with psycopg.connect(postgresql.url, autocommit=True) as one, psycopg.connect(postgresql.url) as other:
        one.execute("SELECT 1\n  , 2")
        one.execute("SELECT %s", (1,))
        for text in ("SELEC 1", "SELECT 1 FROM missing_table", "SELECT 1 / 0", "SELECT 1 / 0"):
            with pytest.raises(psycopg.Error):
                one.execute(text)
        one.execute("SET search_path TO public")
        other.execute("SELECT 3")
        assert postgresql.sent(one.info.backend_pid) == [
            "SELECT 1\n  , 2",
            "SELECT $1",
            "SELEC 1",
            "SELECT 1 FROM missing_table",
            "SELECT 1 / 0",
            "SELECT 1 / 0",
        ]
        assert postgresql.sent(other.info.backend_pid) == ["SELECT 3"]


def test_it_is_shown_without_its_password(postgresql):
    assert postgresql.password not in repr(postgresql)
    assert postgresql.password not in postgresql.db
