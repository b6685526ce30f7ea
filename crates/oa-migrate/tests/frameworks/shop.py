"""An application on SQLAlchemy and Alembic: `shop.py FOLDER URL [schema] [fill] [show] [use]`; the migrations are in the folder."""

import contextlib
import datetime as dt
import decimal
import enum
import json
import logging
import os
import sys
import uuid
import warnings

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Mood(enum.Enum):
    happy = "h"
    sad = "s"


tags = sa.Table(
    "item_tag",
    Base.metadata,
    sa.Column("item_id", sa.ForeignKey("item.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tag.id"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[uuid.UUID] = mapped_column(sa.Uuid, primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(sa.String(20), unique=True)


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("item.id"), index=True)
    mood: Mapped[Mood] = mapped_column(sa.Enum(Mood))
    price: Mapped[decimal.Decimal] = mapped_column(sa.Numeric(12, 4))
    share: Mapped[float | None]
    active: Mapped[bool] = mapped_column(default=True)
    data: Mapped[dict | list | float | None] = mapped_column(sa.JSON)
    raw: Mapped[bytes | None]
    at: Mapped[dt.datetime] = mapped_column(sa.DateTime, server_default=sa.func.now())
    zoned: Mapped[dt.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    day: Mapped[dt.date | None]
    clock: Mapped[dt.time | None]
    span: Mapped[dt.timedelta | None]
    note: Mapped[str | None] = mapped_column(sa.Text)
    half: Mapped[int | None] = mapped_column(sa.Integer, sa.Computed("id / 2"))
    tags: Mapped[list[Tag]] = relationship(secondary=tags, order_by=Tag.name)
    __table_args__ = (sa.CheckConstraint("price >= 0", name="price"),)


def schema(folder, url):
    from alembic import command
    from alembic.config import Config

    os.chdir(folder)
    logging.disable()
    warnings.simplefilter("ignore")
    config = Config("alembic.ini")
    first = not os.path.exists("alembic.ini")
    if first:
        command.init(config, "migrations")
        with open("migrations/env.py") as f:
            env = f.read()
        with open("migrations/env.py", "w") as f:
            f.write(env.replace("target_metadata = None", "from shop import Base\ntarget_metadata = Base.metadata"))
        config = Config("alembic.ini")
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    if first:
        command.revision(config, "first", autogenerate=True)
    command.upgrade(config, "head")


def fill(session):
    all_tags = [Tag(id=uuid.UUID(int=n + (1 << 127)), name=name) for n, name in enumerate(["期货", "a", "Z"])]
    session.add_all(all_tags)
    for n in range(1, 41):
        session.add(
            Item(
                id=n,
                parent_id=n // 2 or None,
                mood=Mood.happy if n % 2 else Mood.sad,
                price=decimal.Decimal(n) / 8,
                share=0.1 * n if n % 3 else None,
                active=n % 5 > 0,
                data=[{"b": 1, "a": [1.5, "x"]}, [], 5, 1.5, "text", None][n % 6],
                raw=bytes([0, n, 255]) if n % 2 else None,
                at=dt.datetime(2024, 3, 31, 2, 30, 0, 123456 * (n % 2)),
                zoned=dt.datetime(2024, 3, 31, 2, 30),
                day=dt.date(2024, 2, 29),
                clock=dt.time(23, 59, 59, n),
                span=dt.timedelta(days=n, microseconds=n),
                note="it's\n多空 %d" % n if n % 4 else "",
                tags=all_tags[: n % 4],
            )
        )
    session.commit()


def show(session):
    for item in session.scalars(sa.select(Item).order_by(Item.id)):
        values = {c.key: getattr(item, c.key) for c in Item.__table__.columns}
        if values["zoned"] is not None:
            values["zoned"] = values["zoned"].replace(tzinfo=None)
        values["tags"] = sorted(f"{t.id} {t.name}" for t in item.tags)
        print(json.dumps(values, default=repr, sort_keys=True, ensure_ascii=False))


def use(session):
    """What the application does afterwards: new keys, cascades, constraints."""
    item = Item(mood=Mood.sad, price=1, data={"new": True}, tags=[Tag(name="new")])
    session.add(item)
    session.commit()
    assert item.id == 41 and item.half == 20 and item.at is not None and item.active, item.id
    session.delete(item)
    session.commit()
    for broken in (Item(mood=Mood.sad, price=-1), Item(mood=Mood.sad, price=1, parent_id=999)):
        session.add(broken)
        try:
            session.commit()
            raise SystemExit("a constraint is gone")
        except sa.exc.IntegrityError:
            session.rollback()


if __name__ == "__main__":
    folder, url, *steps = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    for step in steps:
        if step == "schema":
            with contextlib.redirect_stdout(sys.stderr):
                schema(folder, url)
        else:
            with Session(sa.create_engine(url)) as session:
                {"fill": fill, "show": show, "use": use}[step](session)
