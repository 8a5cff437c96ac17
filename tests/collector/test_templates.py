"""Queries that a template asks: its own file and line."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import jinja2
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from perf_middleware.collector import templates
from perf_middleware.collector.caller import describe, find_caller

HERE = "tests/collector/test_templates.py"

#: What asks, seen from the stack: a library's, so that the nearest frame of the application's is the template's.
ASK = compile("def ask(*_): return find()", "/env/site-packages/sqlalchemy/orm/query.py", "exec")


@pytest.fixture
def asking():
    """A function for templates; what was said each time is in its `said`."""

    def find():
        library["said"].append(describe(*find_caller(2)))
        return ""

    library = {"find": find, "said": []}
    exec(ASK, library)
    return types.SimpleNamespace(ask=library["ask"], said=library["said"])


@pytest.fixture
def render(tmp_path, monkeypatch, asking):
    """Render the first of these Jinja templates, given by name as lines of text."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def rendering(first, /, *, loader=None, **options):
        folder = tmp_path / "templates"
        folder.mkdir(exist_ok=True)
        for name, lines in first.items():
            folder.joinpath(name).write_text("\n".join(lines), encoding="utf-8")
        environment = jinja2.Environment(loader=loader or jinja2.FileSystemLoader(folder), autoescape=True, **options)
        environment.get_template(next(iter(first))).render(ask=asking.ask)
        return asking.said

    return rendering


# ---------------------------------------------------------------------------------------------- what must not happen


def test_a_template_of_no_name_leaves_the_query_to_the_view(asking):
    jinja2.Environment(autoescape=True).from_string("a\n{{ ask() }}").render(ask=asking.ask)
    assert [said.partition(":")[0] for said in asking.said] == [HERE]


def test_an_installed_package_s_template_leaves_the_query_to_the_application(tmp_path, asking):
    folder = tmp_path / "site-packages" / "admin"
    folder.mkdir(parents=True)
    folder.joinpath("list.html").write_text("a\n{{ ask() }}", encoding="utf-8")
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    environment.get_template("list.html").render(ask=asking.ask)
    assert [said.partition(":")[0] for said in asking.said] == [HERE]


@pytest.mark.parametrize("names", [{"debug_info": 7, "name": None}, {"debug_info": "no lines", "name": "x"}, {}])
def test_a_module_that_only_looks_like_a_template_is_what_it_is(asking, names):
    odd = {"__jinja_template__": None, "ask": asking.ask, **names}
    exec(compile("def view(): ask()", "/env/site-packages/odd.py", "exec"), odd)
    odd["view"]()
    assert [said.partition(":")[0] for said in asking.said] == [HERE]


def test_lines_without_an_end_are_forgotten():
    for line in range(templates.MAX_LINES + 10):
        templates._line("a.html", line, "a.html")
    assert templates._line.cache_info().currsize == templates.MAX_LINES


def test_a_template_s_name_may_be_any_text():
    assert describe(templates._line("a\0b\ud800.html", 3, "x"), templates.NO_INSTRUCTION).endswith(
        "b\ud800.html:3 in x"
    )


def test_equal_names_and_lines_in_two_folders_are_two_places():
    """Code objects are compared where rows are read, and CPython's comparison leaves out the file."""
    assert templates._line("shop/a.html", 3, "a.html") != templates._line("admin/a.html", 3, "a.html")
    assert templates._line("shop/a.html", 3, "a.html") != templates._line("shop/a.html", 4, "a.html")


# -------------------------------------------------------------------------------------------------------------- Jinja


def test_an_expression_has_its_own_line(render):
    said = render({"orders.html": ["<h1>", "{{ ask() }}", "", "{% if not ask() %}{{ ask() }}{% endif %}"]})
    assert said == [f"templates/orders.html:{line} in orders.html" for line in (2, 4, 4)]


def test_a_loop_a_macro_and_a_block_have_their_own_lines(render):
    said = render(
        {
            "page.html": [
                "{% extends 'base.html' %}",
                "{% block main %}",
                "{% for _ in [1, 2] %}",
                "{{ ask() }}",
                "{% endfor %}{% endblock %}",
            ],
            "base.html": [
                "{% from 'cells.html' import cell with context %}{{ cell() }}",
                "{% block main %}{% endblock %}",
                "{% include 'foot.html' %}",
            ],
            "cells.html": ["{% macro cell() %}", "", "{{ ask() }}", "{% endmacro %}"],
            "foot.html": ["", "", "", "{{ ask() }}"],
        }
    )
    places = ("cells.html", 3), ("page.html", 4), ("page.html", 4), ("foot.html", 4)
    assert said == [f"templates/{name}:{line} in {name}" for name, line in places]


def test_a_template_that_has_a_name_and_no_file_is_told_by_its_name(render):
    (said,) = render({"x.html": []}, loader=jinja2.DictLoader({"x.html": "\n\n{{ ask() }}"}))
    assert said == "x.html:3 in x.html"


def test_an_asynchronous_template_has_its_line(render):
    (said,) = render({"x.html": ["", "{{ ask() }}"]}, enable_async=True)
    assert said == "templates/x.html:2 in x.html"


def test_a_template_compiled_beforehand_is_told_by_its_name(tmp_path, asking):
    environment = jinja2.Environment(loader=jinja2.DictLoader({"x.html": "\n{{ ask() }}"}), autoescape=True)
    environment.compile_templates(str(tmp_path / "compiled"), zip=None)
    loader = jinja2.ModuleLoader(str(tmp_path / "compiled"))
    jinja2.Environment(loader=loader, autoescape=True).get_template("x.html").render(ask=asking.ask)
    assert asking.said == ["x.html:2 in x.html"]


def test_a_template_s_function_of_the_application_is_nearer_than_the_template(render, asking):
    (folder_said,) = render({"x.html": ["{{ ask() }}"]})

    def helper():
        return asking.ask()

    jinja2.Environment(loader=jinja2.DictLoader({"x.html": "{{ helper() }}"}), autoescape=True).get_template(
        "x.html"
    ).render(helper=helper)
    assert folder_said == "templates/x.html:1 in x.html"
    assert asking.said[1].endswith(" in helper")


def test_an_edited_template_has_its_new_line(tmp_path, render):
    said = render({"x.html": ["{{ ask() }}"]})
    render({"x.html": ["", "", "{{ ask() }}"]})
    assert said == ["templates/x.html:1 in x.html", "templates/x.html:3 in x.html"]


def test_a_lazy_load_of_sqlalchemy_is_the_template_s(tmp_path, record):
    """The most common N+1 there is: a relation walked in a template."""

    class Base(DeclarativeBase):
        pass

    class Customer(Base):
        __tablename__ = "customer"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Order(Base):
        __tablename__ = "shop_order"
        id: Mapped[int] = mapped_column(primary_key=True)
        customer_id = mapped_column(sa.ForeignKey("customer.id"))
        customer: Mapped[Customer] = relationship()

    tmp_path.joinpath("orders.html").write_text(
        "<ul>\n{% for order in orders %}\n{{ order.customer.id }}\n{% endfor %}\n", encoding="utf-8"
    )
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(tmp_path), autoescape=True)
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Order(id=number, customer=Customer(id=number)) for number in range(3)])
        session.commit()
    with record() as seen, Session(engine) as session:
        environment.get_template("orders.html").render(orders=session.scalars(sa.select(Order)))
    engine.dispose()
    first, *loop = [query.caller for query in seen.queries]
    assert first.startswith(HERE)
    assert [caller.rpartition("/")[2] for caller in loop] == ["orders.html:3 in orders.html"] * 3


# ------------------------------------------------------------------------------------------------------------- Django

DJANGO = """
import json, sys
from pathlib import Path
from wsgiref.util import setup_testing_defaults
import django
from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import render
from django.template import Context, Engine
from django.urls import path
from perf_middleware.wsgi import PerfMiddleware

folder = Path(sys.argv[1])
settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", LOGGING_CONFIG=None, DEBUG=sys.argv[2] == "debug",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [folder]}],
)

def shown(request):
    return render(request, "page.html", {"users": User.objects.order_by("id"), "by_text": by_text})

def by_text():
    return Engine().from_string("{{ users.count }}").render(Context({"users": User.objects.all()}))

urlpatterns = [path("", shown)]
django.setup()
from django.contrib.auth.models import Group, User
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from perf_middleware import collector

kept = []
door = PerfMiddleware(WSGIHandler(), log=False, sinks=[kept.append])
call_command("migrate", run_syncdb=True, verbosity=0)
for name in ("a", "b"):
    User.objects.create(username=name)

sys.path.insert(0, str(folder.parent))
environ, answered = {}, []
setup_testing_defaults(environ)
body = door(environ, lambda status, headers, exc_info=None: answered.append(status))
b"".join(body)
body.close()
# With DEBUG, Django asks SQLite to quote the parameters of each statement, for its own log.
asked = [query.caller for query in kept[0].queries if not query.fingerprint.startswith("SELECT QUOTE")]
print(json.dumps({"status": answered, "callers": asked}))
"""

PAGES = {
    "base.html": "<html>\n\n{% block main %}{% endblock %}\n{{ by_text }}\n",
    "page.html": """{% extends "base.html" %}
{% block main %}
  {% for user in users %}
    <li>{{ user.username }}
    {% include "groups.html" %}
  {% endfor %}
  {% with total=users.all.count %}{{ total }}{% endwith %}
{% endblock %}
""",
    "groups.html": "\n{% if user.groups.all %}\nyes\n{% endif %}",
}


@pytest.mark.parametrize("debug", ["debug", "production"])
def test_queries_of_a_django_template_have_its_lines(tmp_path, debug):
    folder = tmp_path / "templates"
    folder.mkdir()
    for name, text in PAGES.items():
        folder.joinpath(name).write_text(text, encoding="utf-8")
    script = tmp_path / "shop.py"
    script.write_text(DJANGO, encoding="utf-8")
    run = [sys.executable, script, folder, debug]
    ended = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert not ended.stderr
    told = json.loads(ended.stdout)
    assert told["status"] == ["200 OK"]
    line = DJANGO.splitlines().index("def by_text():") + 2
    page = "templates/page.html:{} in page.html"
    groups = "templates/groups.html:2 in groups.html"
    assert told["callers"] == [page.format(3), groups, groups, page.format(7), f"shop.py:{line} in by_text"]


@pytest.mark.parametrize("node", [object(), types.SimpleNamespace(token=None, origin=None), None])
def test_a_django_node_made_by_hand_is_no_fault(node):
    nodes = {}
    exec(compile("def render_annotated(self, see): see()", "/env/site-packages/django/template/base.py", "exec"), nodes)
    said = []
    nodes["render_annotated"](node, lambda: said.append(templates.django_line(sys._getframe(1))))
    assert said == [None]
