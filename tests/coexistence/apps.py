"""One application three ways: raw WSGI and ASGI, Flask with SQLAlchemy, Django with its ORM and cursors.

Each asks SQLite and MariaDB the same: `/N` makes N selects, a delete, an insert of three rows and one insert that
fails, on each; `/raise` and `/driver` let an error out. `errors` holds the very objects that were raised. Every text
has `of_app` in it, so that what the peer says of the application can be told from what it asks for itself.
"""

from __future__ import annotations

import json
import os
import sqlite3
import types
from pathlib import Path

import pymysql

SELECT, INSERT = "SELECT {} AS of_app", "INSERT INTO of_app (id) VALUES ({})"
ROWS = [(1,), (2,), (3,)]
NO_QUERIES = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA")


class Raw:
    """No framework: the drivers, and both protocols."""

    protocols = ("wsgi", "asgi")

    def __init__(self):
        self.errors = []
        self.traced = []
        self.sqlite = self.mysql = None

    @staticmethod
    def prepare(peer):
        """Do what has to be done before any tool is installed."""

    def open(self):
        """Connect anew: what is patched by now is what the connections go through."""
        self.close()
        self.sqlite, self.mysql = self.connect()
        self.sqlite.cursor().execute("CREATE TABLE of_app (id INTEGER PRIMARY KEY)")
        with self.mysql.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE of_app (id INTEGER PRIMARY KEY)")
        self.sqlite.set_trace_callback(self.traced.append)

    def connect(self):
        return sqlite3.connect(":memory:"), pymysql.connect(**database())

    def close(self):
        for connection in filter(None, (self.sqlite, self.mysql)):
            connection.close()

    def sent(self):
        """How many statements reached each database so far, by the databases' own count."""
        with self.mysql.cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS WHERE Variable_name IN ('Com_select', 'Com_insert', 'Com_delete')")
            mysql = sum(int(value) for _, value in cursor.fetchall())
        return {"sqlite": sum(not text.startswith(NO_QUERIES) for text in self.traced), "mysql": mysql}

    def work(self, path):
        if path == "/raise":
            self.ask(2)
            raise self.kept(ZeroDivisionError("the application's own"))
        if path == "/driver":
            self.ask(1)
            raise self.refused("sqlite")
        self.ask(int(path[1:]))

    def ask(self, count):
        for name, mark in (("sqlite", "?"), ("mysql", "%s")):
            for number in range(count):
                self.run(name, SELECT.format(mark), (number,))
            self.run(name, "DELETE FROM of_app", ())
            self.run(name, INSERT.format(mark), ROWS)
            assert type(self.refused(name)).__name__ == "IntegrityError"

    def refused(self, name):
        """The driver's own error."""
        try:
            self.run(name, INSERT.format(1), ())
        except Exception as error:  # noqa: BLE001 - each framework has a class of its own
            return self.kept(error)
        raise AssertionError("a second row of the same key was taken")

    def run(self, name, text, arguments):
        cursor = getattr(self, name).cursor()
        if arguments == ROWS:
            cursor.executemany(text, arguments)
        else:
            cursor.execute(text, arguments)
            cursor.fetchall()
        cursor.close()

    def kept(self, error):
        self.errors.append(error)
        return error

    def wsgi(self, environ, start_response):
        self.work(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"x"]

    async def asgi(self, scope, receive, send):
        self.work(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})


class Flask(Raw):
    """Flask, and SQLAlchemy over both drivers."""

    protocols = ("wsgi",)

    def __init__(self):
        super().__init__()
        import flask

        self.flask = flask.Flask("app")
        self.flask.config["PROPAGATE_EXCEPTIONS"] = True
        self.flask.add_url_rule("/<path>", view_func=self.view)

    def view(self, path):
        self.work(f"/{path}")
        return "x"

    def connect(self):
        from sqlalchemy import URL, StaticPool, create_engine

        given = database()
        url = URL.create(
            "mysql+pymysql", given["user"], given["password"], given["host"], given["port"], given["database"]
        )
        self.engines = {
            "sqlite": create_engine("sqlite://", poolclass=StaticPool),
            "mysql": create_engine(url, poolclass=StaticPool),
        }
        return [engine.raw_connection().dbapi_connection for engine in self.engines.values()]

    def run(self, name, text, arguments):
        with self.engines[name].connect() as connection:
            result = connection.exec_driver_sql(text, arguments)
            if result.returns_rows:
                result.all()
            connection.commit()

    def wsgi(self, environ, start_response):
        return self.flask(environ, start_response)


URLS = types.ModuleType("urls")


class Django(Raw):
    """Django's ORM and cursors over SQLite, with PyMySQL beside it."""

    protocols = ("wsgi",)

    @staticmethod
    def prepare(peer):
        from django.conf import settings

        settings.configure(
            ALLOWED_HOSTS=["*"],
            DATABASES={
                "default": {
                    "ENGINE": "django.db.backends.sqlite3",
                    "NAME": Path(os.environ["COEXISTENCE_FOLDER"]) / "app.sqlite",
                    "CONN_MAX_AGE": None,
                }
            },
            DEBUG=True,
            DEBUG_PROPAGATE_EXCEPTIONS=True,
            DEBUG_TOOLBAR_CONFIG={"SHOW_TOOLBAR_CALLBACK": lambda request: True},
            DEFAULT_AUTO_FIELD="django.db.models.AutoField",
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.staticfiles", *peer.django_apps],
            LOGGING_CONFIG=None,
            MIDDLEWARE=peer.django_middleware,
            ROOT_URLCONF=URLS,
            SECRET_KEY="x",
            SILKY_MAX_RECORDED_REQUESTS_CHECK_PERCENT=0,
            STATIC_URL="/static/",
            TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
            USE_TZ=True,
        )

    def __init__(self):
        super().__init__()
        import django
        from django.conf import settings
        from django.core.wsgi import get_wsgi_application
        from django.urls import include, path

        django.setup()
        from django.db import models

        class OfApp(models.Model):  # noqa: DJ008 - nobody prints it
            class Meta:
                app_label = "app"
                db_table = "of_app"

        self.model = OfApp
        namespaces = [
            path(f"_/{name}/", include(f"{name}.urls")) for name in settings.INSTALLED_APPS if "." not in name
        ]
        URLS.urlpatterns = [*namespaces, path("<path>", self.view)]
        self.handler = get_wsgi_application()

    def view(self, request, path):
        from django.http import HttpResponse

        self.work(f"/{path}")
        return HttpResponse("<html><body>x</body></html>")

    def connect(self):
        from django.core.management import call_command
        from django.db import connection

        connection.ensure_connection()
        if self.sqlite is None:
            call_command("migrate", verbosity=0)
        return connection.connection, pymysql.connect(**database())

    def close(self):
        from django.db import connection

        if self.sqlite is not None:
            with connection.cursor() as cursor:
                cursor.execute("DROP TABLE of_app")
            connection.close()
            self.mysql.close()

    def run(self, name, text, arguments):
        from django.db import connection

        if name == "mysql":
            super().run(name, text, arguments)
        elif text.startswith("SELECT"):
            list(self.model.objects.filter(pk=arguments[0]))
        elif arguments == ROWS:
            self.model.objects.bulk_create([self.model(id=number) for (number,) in ROWS])
        else:
            with connection.cursor() as cursor:
                cursor.execute(text, arguments)

    def wsgi(self, environ, start_response):
        return self.handler(environ, start_response)


def database():
    """How to connect to the private MariaDB of the test."""
    return {**json.loads(os.environ["COEXISTENCE_DATABASE"]), "autocommit": True, "ssl_disabled": True}


APPS = {"raw": Raw, "flask": Flask, "django": Django}
