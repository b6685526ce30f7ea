"""Shared by the benchmarks of this folder: a private PostgreSQL server, and what a command takes."""

import os
import pathlib
import pwd
import resource
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(os.environ.get("PG_BIN", "/usr/lib/postgresql/15/bin"))


def release_program(name):
    """The release build of one of the programs; ends with what to do when it is not built."""
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "release" / name
    if not program.exists():
        sys.exit(f"{program} is not built; run: cargo build --release --workspace --bins")
    return program


class Server:
    def __init__(self, home):
        self.home = home
        self.user = "postgres" if os.geteuid() == 0 else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if self.user:
            ids = pwd.getpwnam(self.user)
            os.chown(home, ids.pw_uid, ids.pw_gid)
        self.call("initdb", "-D", home / "data", "-U", "bench", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8")
        with open(home / "data/postgresql.conf", "a", encoding="utf8") as conf:
            conf.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{home}'\n")
        self.call("pg_ctl", "-D", home / "data", "-l", home / "log", "-w", "start")

    def call(self, program, *arguments):
        command = [str(BIN / program), *map(str, arguments)]
        subprocess.run(command, check=True, user=self.user, stdout=subprocess.DEVNULL, cwd=self.home)

    def url(self, database):
        return f"postgresql://bench@127.0.0.1:{self.port}/{database}"

    def sql(self, database, text):
        done = subprocess.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", self.url(database), "-c", text], check=True, capture_output=True, text=True)
        return done.stdout

    def fresh(self, database):
        self.sql("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self.sql("postgres", f"CREATE DATABASE {database}")
        self.sql("postgres", "CHECKPOINT")

    def stop(self):
        self.call("pg_ctl", "-D", self.home / "data", "-m", "immediate", "stop")


def timed(command, **options):
    """Wall seconds, CPU seconds and peak resident MB of a command and its children (the server's are not among them)."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    output, errors = process.communicate()
    wall = time.monotonic() - started
    if process.returncode != 0:
        shown = " ".join(map(str, command))
        sys.exit(f"{shown}: exit {process.returncode}\n{output.decode()[-2000:]}{errors.decode()[-2000:]}")
    return wall, output


def measure(command, **options):
    """Like timed, in a process of its own, so that CPU and memory are of this command alone."""
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            wall, output = timed(command, **options)
        except SystemExit as failure:
            print(failure, file=sys.stderr, flush=True)
            os._exit(1)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        os.write(write, f"{wall} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss / 1024}\n".encode())
        with os.fdopen(write, "wb") as pipe:
            pipe.write(output)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        first, _, output = pipe.read().partition(b"\n")
    os.wait()
    if not first:
        sys.exit("a measured command failed, see above")
    wall, cpu, rss = map(float, first.split())
    return {"wall": wall, "cpu": cpu, "rss": rss, "output": output}


class Table:
    """Rows that are measured several times, printed as Markdown with the median of each cell and, where it was measured more than once, the
    lowest and the highest value. Columns are (NAME, DIGITS); one without digits is a label.

    >>> table = Table(("what", None), ("s", 1), ("MB", 0))
    >>> for wall in (2.0, 1.0, 4.0):
    ...     table.add("copy", wall, 12)
    >>> table.add("pgloader", None, "not installed")
    >>> table.print()
    | what | s | MB |
    |---|---:|---:|
    | copy | 2.0 (1.0–4.0) | 12 |
    | pgloader |  | not installed |
    """

    def __init__(self, *columns):
        self.columns = columns
        self.labels = sum(digits is None for _, digits in columns)
        self.rows = {}

    def add(self, *cells):
        self.rows.setdefault(cells[:self.labels], []).append(cells[self.labels:])

    @staticmethod
    def cell(values, digits):
        numbers = [v for v in values if isinstance(v, (int, float))]
        if not numbers:
            return next((str(v) for v in values if v is not None), "")
        low, middle, high = (f"{v:,.{digits}f}" for v in (min(numbers), statistics.median(numbers), max(numbers)))
        return middle if low == high else f"{middle} ({low}–{high})"

    def print(self):
        print("| " + " | ".join(name for name, _ in self.columns) + " |")
        print("|" + "|".join("---" if digits is None else "---:" for _, digits in self.columns) + "|")
        for labels, measured in self.rows.items():
            numbers = [self.cell(values, digits) for values, (_, digits) in zip(zip(*measured), self.columns[self.labels:])]
            print("| " + " | ".join([*labels, *numbers]) + " |", flush=True)
