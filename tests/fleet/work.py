"""What the fleet's applications do: a connection of its own for each request, whose number the response tells."""

from __future__ import annotations

import json
import os

import pymysql

CONNECTION = "X-Connection"


def connect():
    return pymysql.connect(**json.loads(os.environ["FLEET_DATABASE"]))


def read(cursor, count):
    for number in range(count):
        cursor.execute("SELECT seq AS of_read FROM seq_1_to_10 WHERE seq = %s", (number,))
        cursor.fetchall()


def write(cursor, count):
    connection = cursor.connection
    connection.begin()
    cursor.execute("SAVEPOINT a")
    for number in range(count):
        cursor.execute("INSERT INTO fleet (of_write) VALUES (%s)", (number,))
    if count % 2:
        connection.rollback()
    else:
        connection.commit()


def many(cursor, count):
    cursor.executemany("INSERT INTO fleet (of_many) VALUES (%s)", [(number,) for number in range(count)])
    cursor.executemany("SELECT %s AS of_many", ((number,) for number in range(count)))


def procedure(cursor, count):
    for number in range(count):
        cursor.callproc("fleet_of_procedure", (number,))
        while cursor.nextset():
            pass


def failing(cursor, count):
    for number in range(count):
        try:
            cursor.execute("SELECT of_failing FROM missing WHERE id = %s", (number,))
        except pymysql.err.ProgrammingError:
            cursor.connection.rollback()


def streamed(cursor, count):
    """The rows' text, one query before each; the connection is closed with the last."""
    for number in range(count):
        cursor.execute("SELECT seq AS of_stream FROM seq_1_to_10 WHERE seq = %s", (number,))
        yield f"{cursor.fetchall()}\n"
    cursor.connection.close()


WORK = {"read": read, "write": write, "many": many, "procedure": procedure, "failing": failing}
