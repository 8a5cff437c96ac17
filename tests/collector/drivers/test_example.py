"""The example of a third party's driver: laid out as an installer does, in a program of its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from perf_middleware import collector

EXAMPLE = Path(__file__).parents[3] / "examples" / "driver"


@pytest.fixture
def installed(tmp_path):
    """A folder with the package and its metadata, made from its own pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    (name,) = project["entry-points"]["perf_middleware.drivers"]
    module = project["entry-points"]["perf_middleware.drivers"][name]
    (tmp_path / f"{module}.py").write_text((EXAMPLE / f"{module}.py").read_text())
    metadata = tmp_path / f"{module}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (metadata / "entry_points.txt").write_text(f"[perf_middleware.drivers]\n{name} = {module}\n")
    return tmp_path


def run(installed, code):
    program = f"import sys; sys.path.insert(0, {str(installed)!r})\n{code}"
    environment = {**os.environ, "PERF_MIDDLEWARE_LOG": "off"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_imports_neither_duckdb_nor_what_is_private_here():
    tree = ast.parse((EXAMPLE / "perf_middleware_duckdb.py").read_text())
    imported = [name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names]
    assert "duckdb" not in {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert not [name.name for name in imported if name.name.startswith("_")]


def test_it_is_no_driver_where_it_is_not_installed():
    assert "duckdb" not in collector.known()


def test_it_is_found_hooked_and_gone_again(installed):
    printed = run(
        installed,
        """
from perf_middleware import collector
from perf_middleware.errors import faults
import duckdb
before = {name: value for name, value in vars(duckdb.DuckDBPyConnection).items()}
assert collector.known()[-1] == "duckdb"
collector.install("duckdb")
print(collector.status(), duckdb.DuckDBPyConnection.execute is before["execute"])
collector.uninstall("duckdb")
after = vars(duckdb.DuckDBPyConnection)
print([name for name in before if name[:2] != "__" and before[name] is not after[name]], dict(faults))
""",
    )
    assert printed == "{'duckdb': 'hooked'} False\n[] {}\n"


def test_the_block_of_its_readme_prints_what_it_says(installed):
    code = (EXAMPLE / "README.md").read_text().split("```python\n")[1].partition("```")[0]
    said = code.rpartition("# ")[2]
    assert run(installed, code) == said


def test_statements_sets_rows_and_transactions_are_in_the_record(installed):
    printed = run(
        installed,
        """
from perf_middleware import collector, profile
from perf_middleware.errors import faults
import duckdb
collector.install("duckdb")
with profile("x") as p:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t (a INT)")
    connection.begin()
    connection.executemany("INSERT INTO t VALUES (?)", [[1], [2], [3]])
    connection.commit()
    connection.execute("SELECT a FROM t WHERE a > ?", [1])
    connection.fetchmany(1)
    connection.fetchall()
    try:
        connection.execute("SELECT missing FROM t")
    except duckdb.Error:
        pass
for query in p.queries:
    print(query.system, query.fingerprint, query.many, query.rows, query.transaction, query.error)
print([transaction.outcome for transaction in p.transactions], dict(faults))
""",
    )
    assert printed.splitlines()[1:] == [
        "duckdb INSERT INTO t VALUES (?) 3 3 0 None",
        "duckdb SELECT a FROM t WHERE a > ? None 2 None None",
        "duckdb SELECT missing FROM t None None None BinderException",
        "['commit'] {}",
    ]
