"""A site on Django: `site_on_django.py [schema] [fill] [show] [use]` with its database in DATABASE (a SQLite path, or host:port/name of PostgreSQL)."""

import datetime as dt
import decimal
import json
import os
import sys
import uuid
import warnings

import django
from django.conf import settings

database = os.environ["DATABASE"]
if ":" in database:
    host, _, rest = database.partition(":")
    port, _, name = rest.partition("/")
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": host,
        "PORT": port,
        "NAME": name,
        "USER": os.environ["DATABASE_USER"],
        "PASSWORD": os.environ.get("DATABASE_PASSWORD", ""),
        "OPTIONS": {"options": "-c search_path=public"},
    }
else:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": database}
settings.configure(
    DATABASES={"default": database},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "library"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import IntegrityError, transaction
from library.models import Author, Book


def schema():
    call_command("migrate", verbosity=0)
    call_command("migrate", run_syncdb=True, verbosity=0)


def fill():
    group = Group.objects.create(name="readers")
    group.permissions.set(Permission.objects.all()[:3])
    user = User(username="Ann", email="a@x.cn", date_joined=dt.datetime(2024, 3, 31, 2, 30, tzinfo=dt.timezone.utc))
    user.password = "unusable"
    user.save()
    user.groups.add(group)
    authors = [
        Author.objects.create(
            id=uuid.UUID(int=n + (1 << 126)), name=name, user=user if n else None, spent=dt.timedelta(days=n, microseconds=-n), born=dt.date(1990, 2, 28)
        )
        for n, name in enumerate(["期货", "a", "Z"])
    ]
    before = None
    for n in range(1, 31):
        book = Book.objects.create(
            title="it's %d" % n,
            sequel=before,
            price=decimal.Decimal(n) / 8,
            rating=n / 3 if n % 4 else None,
            stock=n,
            printed=n % 2 == 0,
            made=dt.datetime(2024, 3, 31, 2, 30, 0, n % 3, tzinfo=dt.timezone.utc),
            opens=dt.time(8, 30, 0, n),
            data=[{"b": 1, "a": [1.5]}, [], 5, 1.5, "text", None][n % 6],
            cover=bytes([0, n, 255]),
            address=["10.0.0.1", "2001:db8::1", None][n % 3],
            slug="s-%d" % n if n % 2 else None,
        )
        book.authors.set(authors[: n % 4])
        before = book


def show():
    for model in (User, Group, Author, Book):
        for row in model.objects.order_by("pk"):
            values = {f.name: getattr(row, f.attname) for f in model._meta.fields}
            if isinstance(row, Book):
                values["cover"] = bytes(row.cover)
                values["authors"] = sorted(str(a.pk) for a in row.authors.all())
            print(json.dumps(values, default=repr, sort_keys=True, ensure_ascii=False))


def use():
    with transaction.atomic():
        # Deferred: the child comes before its parent.
        author = Author(name="new", user_id=2)
        author.save()
        assert User.objects.create(username="Bob").pk == 2
    book = Book.objects.create(title="x", price=1, made=dt.datetime.now(dt.timezone.utc))
    assert book.pk == 31, book.pk
    book.delete()
    User.objects.get(pk=2).delete()
    for broken in (Book(title="x", price=-1, made=dt.datetime.now(dt.timezone.utc)), Author(name="期货")):
        try:
            with transaction.atomic():
                broken.save()
            raise SystemExit("a constraint is gone")
        except IntegrityError:
            pass


warnings.simplefilter("ignore")
for step in sys.argv[1:]:
    {"schema": schema, "fill": fill, "show": show, "use": use}[step]()
