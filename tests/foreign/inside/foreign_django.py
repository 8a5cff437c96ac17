"""Settings for Django's own tests, on SQLite or, with FOREIGN_DATABASE, on MariaDB through PyMySQL."""

from __future__ import annotations

import json
import os
import unittest

import foreign_outcomes
from django.test.runner import DiscoverRunner


def _mariadb(settings):
    import pymysql  # noqa: PLC0415 - where it is the driver

    pymysql.version_info = (2, 2, 1, "final", 0)  # what Django asks of mysqlclient, whose place PyMySQL takes
    pymysql.install_as_MySQLdb()
    return {"ENGINE": "django.db.backends.mysql", **settings}


_database = json.loads(os.environ.get("FOREIGN_DATABASE", "null"))

DATABASES = {
    name: _mariadb({**_database, "NAME": name}) if _database else {"ENGINE": "django.db.backends.sqlite3"}
    for name in ("default", "other")
}
SECRET_KEY = "nobody's"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "foreign_django.Runner"


class Runner(DiscoverRunner):
    def get_resultclass(self):
        return foreign_outcomes.Result


def _run_in_block(self, result=None, *, run=unittest.TestCase.run):
    with foreign_outcomes.block(self.id()):
        return run(self, result)


unittest.TestCase.run = _run_in_block
