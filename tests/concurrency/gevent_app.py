"""A WSGI application on gevent. As a program it is a server of its own (`python gevent_app.py PORT`)."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()  # gunicorn's worker does it before it loads an application

import contextvars
import json
import os
import sqlite3
import threading

import gevent
import pymysql
from gevent.event import Event

from perf_middleware.collector import unattributed
from perf_middleware.wsgi import PerfMiddleware

CLIENTS = 16

everybody = threading.Barrier(CLIENTS, timeout=60)  # gevent's, by monkey patching
released = Event()
late = []


def connect():
    return pymysql.connect(**json.loads(os.environ["GEVENT_DATABASE"]))


def ask(owner, count):
    """As many statements on MariaDB, whose socket lets others run, and on SQLite, between which others may."""
    mysql, sqlite = connect(), sqlite3.connect(":memory:")
    with mysql, mysql.cursor() as cursor:
        for _ in range(count):
            cursor.execute(f"SELECT 1 AS of_{owner}")
            cursor.fetchall()
            sqlite.execute(f"SELECT 1 AS of_{owner}").fetchall()
            gevent.sleep(0)
    sqlite.close()


def outlive(connection):
    released.wait()
    with connection.cursor() as cursor:
        for _ in range(3):
            cursor.execute("SELECT 1 AS of_nobody")
            gevent.sleep(0)


def work(kind, owner, count):
    if kind == "ask":
        everybody.wait()
        ask(owner, count)
    elif kind == "spawn":
        everybody.wait()
        gevent.joinall([gevent.spawn(ask, owner, 1) for _ in range(count)], raise_error=True)
    elif kind == "context":
        everybody.wait()
        spawned = [gevent.spawn(contextvars.copy_context().run, ask, owner, 1) for _ in range(count)]
        gevent.joinall(spawned, raise_error=True)
    elif kind == "late":
        late.append(gevent.spawn(contextvars.copy_context().run, outlive, connect()))
    elif kind == "release":
        ask(owner, 1)
        released.set()
        gevent.joinall(late, raise_error=True)
        ask(owner, 1)


def serve(environ, start_response):
    _, kind, owner, count = environ["PATH_INFO"].split("/")
    work(kind, owner, int(count))
    start_response("200 OK", [("X-Unattributed", str(unattributed.count))])
    return [b"x"]


app = PerfMiddleware(serve, max_overhead_percent=0)

if __name__ == "__main__":
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", int(sys.argv[1])), app, log=None).serve_forever()
