"""The demo's shop: five pages over one database.

Three of them ask the database for too much, as pages do that grew. Nothing here knows that it is measured.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import Any
from urllib.parse import unquote, urlsplit

DATABASE = urlsplit(os.environ.get("SHOP_DATABASE", "sqlite:///shop.sqlite3"))

CUSTOMERS = 40
ORDERS = 400


Row = dict[str, Any]


def orders() -> list[Row]:
    """The latest orders, and then a query for the customer of each."""
    cursor = connection().cursor()
    cursor.execute("SELECT id, customer_id, cents FROM orders ORDER BY id DESC LIMIT 25")
    listed: list[Row] = cursor.fetchall()
    for order in listed:
        cursor.execute(sql("SELECT name FROM customers WHERE id = %s"), (order["customer_id"],))
        order["customer"] = cursor.fetchone()["name"]
    return listed


def orders_fixed() -> list[Row]:
    """The same page, its customers joined: one query, however many orders are listed."""
    cursor = connection().cursor()
    cursor.execute(
        "SELECT orders.id, customer_id, cents, customers.name AS customer"
        " FROM orders JOIN customers ON customers.id = customer_id ORDER BY orders.id DESC LIMIT 25"
    )
    listed: list[Row] = cursor.fetchall()
    return listed


def basket() -> list[Row]:
    """The products of a basket; the same setting is looked up again for each."""
    cursor = connection().cursor()
    cursor.execute("SELECT id, name, cents FROM products WHERE id <= 8")
    lines: list[Row] = cursor.fetchall()
    for line in lines:
        cursor.execute(sql("SELECT value FROM settings WHERE name = %s"), ("currency",))
        line["currency"] = cursor.fetchone()["value"]
    return lines


def product(number: int) -> Row:
    """One product, by its key: nothing to improve."""
    cursor = connection().cursor()
    cursor.execute(sql("SELECT id, name, cents FROM products WHERE id = %s"), (number,))
    found: Row | None = cursor.fetchone()
    return found or {}


def turnover() -> Row:
    """A report that takes the database more than half a second."""
    cursor = connection().cursor()
    cursor.execute(SLOW_REPORT)
    summed: Row = cursor.fetchone()
    return summed


if DATABASE.scheme == "sqlite":
    SLOW_REPORT = (
        "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 4000000)"
        " SELECT COUNT(*) AS placed FROM numbers"
    )
else:
    SLOW_REPORT = "SELECT COUNT(*) AS placed, SLEEP(0.7) AS waited FROM orders"


def sql(text: str) -> str:
    """The statement with its placeholders as this database's driver spells them."""
    return text.replace("%s", "?") if DATABASE.scheme == "sqlite" else text


def connection() -> Any:
    """The connection of this thread, opened when it first asks."""
    if not hasattr(_threads, "connection"):
        _threads.connection = _connect_sqlite() if DATABASE.scheme == "sqlite" else _connect_mariadb()
    return _threads.connection


def seed() -> None:
    """Create the tables and fill them."""
    cursor = connection().cursor()
    for table in (
        "customers (id INTEGER PRIMARY KEY, name VARCHAR(80))",
        "orders (id INTEGER PRIMARY KEY, customer_id INTEGER, cents INTEGER)",
        "products (id INTEGER PRIMARY KEY, name VARCHAR(80), cents INTEGER)",
        "settings (name VARCHAR(80) PRIMARY KEY, value VARCHAR(80))",
    ):
        cursor.execute(f"CREATE TABLE {table}")
    customers = [(number, f"Customer {number}") for number in range(1, CUSTOMERS + 1)]
    products = [(number, f"Product {number}", 100 * number) for number in range(1, CUSTOMERS + 1)]
    placed = [(number, number * 7 % CUSTOMERS + 1, 100 * number) for number in range(1, ORDERS + 1)]
    cursor.executemany(sql("INSERT INTO customers VALUES (%s, %s)"), customers)
    cursor.executemany(sql("INSERT INTO products VALUES (%s, %s, %s)"), products)
    cursor.executemany(sql("INSERT INTO orders VALUES (%s, %s, %s)"), placed)
    cursor.execute("INSERT INTO settings VALUES ('currency', 'EUR')")
    connection().commit()


_threads = threading.local()


def _connect_mariadb() -> Any:
    import pymysql  # noqa: PLC0415 - the shop can do without

    return pymysql.connect(
        host=DATABASE.hostname,
        port=DATABASE.port or 3306,
        user=DATABASE.username,
        password=unquote(DATABASE.password or ""),
        database=DATABASE.path.lstrip("/"),
        autocommit=True,
        cursorclass=pymysql.cursors.DictCursor,
    )


def _connect_sqlite() -> Any:
    opened = sqlite3.connect(DATABASE.path.removeprefix("/"))
    opened.row_factory = lambda cursor, row: {
        column[0]: value for column, value in zip(cursor.description, row, strict=True)
    }
    return opened


if __name__ == "__main__":
    seed()
