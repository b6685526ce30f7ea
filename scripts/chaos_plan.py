"""scripts/chaos --plan and --leaks: the named cases as a table that a person can keep, and what the programs hold while days go by."""

import collections
import datetime
import json
import os
import pathlib
import resource
import signal
import statistics
import sys
import threading
import time
import urllib.request

from chaos_world import FIRST_DAY, ROOT, World, wait_for


class Watch(threading.Thread):
    """How long the page takes to answer meanwhile."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.took, self.failed, self.over = port, [], 0, False
        self.start()

    def run(self):
        while not self.over:
            begun = time.monotonic()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/admin/crawler/health", timeout=10) as answer:
                    answer.read()
                self.took.append(time.monotonic() - begun)
            except OSError:
                self.failed += 1
            time.sleep(0.1)

    def end(self):
        self.over = True
        self.join()
        return f"{statistics.median(self.took) * 1000:.0f} / {max(self.took) * 1000:.0f} ms" if self.took else f"none of {self.failed}"


class Plan:
    """Each case: crawlers at once, something that happens to them, and what is there, said and reported afterwards."""

    def __init__(self, args):
        self.args, self.world = args, World(args.dir, reference=False, scheduled=False)
        self.machine = self.world.machines[0]
        text = (ROOT / "crates/oa-crawl/sources/zhihui-full-view.toml").read_text()
        for i in range(1, args.crawlers + 1):
            lines = [f'name = "crawler-{i:02}"' if line.startswith("name =") and n < 6 else line for n, line in enumerate(text.splitlines())]
            lines = [line for line in lines if not line.startswith(("schedule", "again"))]
            (self.machine.folder / "sources" / f"crawler-{i:02}.toml").write_text('schedule = "0 9 * * *"\n' + "\n".join(lines) + "\n")
        self.page = self.world.serve(self.machine)
        self.day, self.failures = FIRST_DAY, 0
        self.rows = []

    def case(self, name, count, during=None, ready=None, mend=None):
        world, sql = self.world, self.world.cluster.sql
        days = [self.day + datetime.timedelta(days=n) for n in range(count)]
        self.day = days[-1] + datetime.timedelta(days=1)
        world.clock.set(self.day, 10, 0)
        before = sql("SELECT coalesce(max(seq), 0) FROM oa.runs")
        messages = len(self.messages())
        watch = Watch(self.page.port)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.monotonic()
        if during and not ready:
            during()
        started = [world.start(self.machine, "oa-crawl", "run", f"crawler-{n + 1:02}", "--date", day) for n, day in enumerate(days)]
        if during and ready:
            wait_for(name, ready)
            during()
        codes = collections.Counter()
        took = []
        for process in started:
            codes[process.wait(300)] += 1
            took.append(time.monotonic() - begun)
        if mend:
            world.start(self.machine, "oa-alert", "check").wait()
            mend()
        mended = time.monotonic()
        world.cluster.mend(world.password)
        # What cron and a person do next.
        world.start(self.machine, "oa-crawl", "drain").wait()
        at_once = self.present(days)
        again = 0
        for n, day in enumerate(days):
            if sql(f"SELECT count(*) FROM market_full_view WHERE record_date = '{day}'") != str(self.served(day)):
                world.start(self.machine, "oa-crawl", "run", f"crawler-{n + 1:02}", "--date", day).wait()
                again += 1
        for _ in range(2):
            world.start(self.machine, "oa-alert", "check").wait()
            world.clock.advance(120)
        recovered = time.monotonic() - mended
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        answers = watch.end()
        there = self.present(days)
        if there != (len(days), len(days)):
            self.failures += 1
        open_now = sql("SELECT string_agg(rule || coalesce(' ' || task, ''), ', ') FROM oa.incidents WHERE resolved_at IS NULL AND rule NOT LIKE 'backup%'")
        told = collections.Counter(m["title"] for m in self.messages()[messages:])
        runs = sql(f"SELECT string_agg(status || ' ' || n, ', ' ORDER BY n DESC) FROM (SELECT status, count(*) n FROM oa.runs WHERE seq > {before} GROUP BY 1) x")
        cpu = usage.ru_utime + usage.ru_stime - used.ru_utime - used.ru_stime
        self.rows.append(
            [
                name,
                ", ".join(f"{n} × {code}" for code, n in sorted(codes.items())),
                f"{took[-1]:.1f} s, CPU {cpu:.1f} s",
                f"{at_once[0]} of {count}",
                str(again),
                f"{there[0]} of {count}",
                runs,
                "; ".join(f"{title}{f' ×{n}' if n > 1 else ''}" for title, n in list(told.items())[:4]) + (f"; {len(told) - 4} more" if len(told) > 4 else "") or "none",
                open_now or "none",
                f"{recovered:.1f} s" if mend else "–",
                answers,
            ]
        )
        print(f"{name}: {self.rows[-1][1:]}", file=sys.stderr, flush=True)

    def messages(self):
        with urllib.request.urlopen(f"{self.world.base}/_sim/messages", timeout=10) as answer:
            return json.load(answer)

    def served(self, day):
        query = f"publishDate={day}&sectorId=&morePort=%E5%85%A8%E9%83%A8"
        request = urllib.request.Request(f"{self.world.base}/zhihui/api/report/overallView?{query}", headers={"authorization": "sim-token", "zh-platform": "WEB"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return len(json.load(answer)["result"])

    def present(self, days):
        """Days with all their records, and days with any."""
        there = dict(
            line.split("|")
            for line in self.world.cluster.sql(f"SELECT record_date, count(*) FROM market_full_view WHERE record_date BETWEEN '{days[0]}' AND '{days[-1]}' GROUP BY 1").split("\n")
            if line
        )
        return sum(there.get(str(day)) == str(self.served(day)) for day in days), len(there)

    def running(self, count):
        return lambda: int(self.world.cluster.sql("SELECT count(*) FROM oa.runs WHERE status IN ('running', 'retrying')")) >= count

    def all(self):
        world, cluster = self.world, self.world.cluster
        network = lambda mode: [setattr(node.proxy, "mode", mode) for node in cluster.nodes]  # noqa: E731

        def sites(mode):
            world.sites.mode = mode

        def killed():
            cluster.primary.kill()
            sites("pass")

        self.case("six crawlers at once", 6)
        self.case(f"{self.args.crawlers} at once", self.args.crawlers)
        self.case("six, the network to the sites is gone", 6, lambda: sites("refuse"), mend=lambda: sites("pass"))
        self.case("six, PostgreSQL is gone at the start", 6, lambda: network("refuse"), mend=lambda: network("pass"))
        sites("slow")
        self.case("six, PostgreSQL is killed in the middle", 6, killed, self.running(6), cluster.primary.start)
        for name, mode in (("before it is passed on", "no commit"), ("after it was passed on, its answer lost", "no answer")):
            sites("slow")
            self.case(f"six, the connection is cut at COMMIT, {name}", 6, lambda mode=mode: (network(mode), sites("pass")), self.running(6), lambda: network("pass"))
        self.case(f"{self.args.crawlers}, PostgreSQL is gone at the start", self.args.crawlers, lambda: network("refuse"), mend=lambda: network("pass"))
        print("| what | exit codes | took | days complete then | collected again by hand | days complete | runs | messages | open incidents | recovery | the page, median / longest |")
        print("|---" * 11 + "|")
        for row in self.rows:
            print(f"| {' | '.join(row)} |")


def plan(args):
    made = Plan(args)
    try:
        made.all()
    finally:
        made.page.terminate()
        made.page.wait()
        made.world.close(keep=bool(args.keep or made.failures))
    return 1 if made.failures else 0


# What is held over time.

SERIES = ["memory, MB", "descriptors", "sessions at PostgreSQL", "state directory, MB", "spool, kB", "WAL, MB", "database, MB", "repository, MB"]


def process_tree(pid):
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        try:
            todo += map(int, pathlib.Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            pass
    return found


def held(process):
    """Resident memory in MB, and open descriptors, of a program and what it started."""
    memory = descriptors = 0
    for pid in process_tree(process.pid):
        try:
            memory += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        except (OSError, ValueError):
            pass
    return memory / 1e6, descriptors


def size(folder):
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            pass
    return total


def leaks(args):
    """A day of the crontab, a minute of it each time, in so many minutes."""
    world = World(args.dir, reference=False)
    machine = world.machines[0]
    services = {"oa-report serve": world.serve(machine), "oa-backup stream": world.start(machine, "oa-backup", "stream")}
    page, samples, starts = services["oa-report serve"].port, collections.defaultdict(list), 0
    day, begun, span = FIRST_DAY, time.monotonic(), args.leaks * 60
    minute, sampled = -1, 0.0
    try:
        while (gone := time.monotonic() - begun) < span:
            at = int(gone / span * 1440)
            if at > minute:
                for passed in range(minute + 1, at + 1):
                    minute = passed
                    world.clock.set(day, minute // 60, minute % 60)
                    commands = [["oa-crawl", "run", "--due"], ["oa-alert", "check"]] if passed == at else []
                    commands += [["oa-report", "daily", "--send", "--cron"]] if passed == 545 else []
                    commands += [["oa-backup", "incremental", "--cron"]] if passed % 60 == 40 else []
                    commands += [["oa-crawl", "drain"]] if passed % 60 == 0 else []
                    for command in commands:
                        world.start(machine, *command).wait(120)
                        starts += 1
                for path in ("admin/crawler/health", "metrics", ""):
                    with urllib.request.urlopen(f"http://127.0.0.1:{page}/{path}", timeout=30) as answer:
                        answer.read()
            if gone - sampled >= span / 300:
                sampled = gone
                sample(world, services, samples, minute / 60)
            time.sleep(0.02)
    finally:
        for process in services.values():
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        world.close(keep=args.keep)
    grown = 0
    print("| what | of | early | late |\n|---|---|---:|---:|")
    for (panel, of), values in samples.items():
        # Of the first quarter the second half: what they begin with is no measure.
        part = max(1, len(values) // 8)
        first, last = (statistics.median(v for _, v in some) for some in (values[part : 2 * part] or values[:1], values[-part:]))
        print(f"| {panel} | {of} | {first:.1f} | {last:.1f} |")
        if panel in SERIES[:3] and last > first * 1.2 + 5:
            grown += 1
    print(f"\n{starts} programs were started, {args.leaks:g} minutes for a day; " + (f"{grown} of the figures above grow" if grown else "no program holds more at the end"))
    if args.svg:
        pathlib.Path(args.svg).write_text(picture(samples, args.leaks, starts))
    return 1 if grown else 0


def sample(world, services, samples, hour):
    machine, cluster = world.machines[0], world.cluster
    for name, process in services.items():
        memory, descriptors = held(process)
        samples[(SERIES[0], name)].append((hour, memory))
        samples[(SERIES[1], name)].append((hour, descriptors))
    names = cluster.sql("SELECT application_name || '|' || count(*) FROM pg_stat_activity WHERE application_name LIKE 'oa-%' GROUP BY application_name")
    sessions = dict(line.split("|") for line in names.split("\n") if line)
    for name in ("oa-report", "oa-backup"):
        samples[(SERIES[2], name)].append((hour, float(sessions.get(name, 0))))
    samples[(SERIES[3], "machine a")].append((hour, size(machine.state) / 1e6))
    spool = machine.state / "spool.db"
    samples[(SERIES[4], "machine a")].append((hour, (spool.stat().st_size if spool.exists() else 0) / 1e3))
    samples[(SERIES[5], "pg_wal")].append((hour, size(cluster.primary.data / "pg_wal") / 1e6))
    samples[(SERIES[6], "oa")].append((hour, float(cluster.sql("SELECT pg_database_size('oa')")) / 1e6))
    samples[(SERIES[7], "repository")].append((hour, size(world.repository) / 1e6))


def picture(samples, minutes, starts):
    """Small multiples, one for each figure, each from zero."""
    wide, high, gap, columns = 300, 110, 60, 2
    rows = (len(SERIES) + 1) // columns
    width, height = columns * (wide + gap) + 30, rows * (high + gap) + 70
    colours = ["#1f6feb", "#d1242f"]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="40" y="24" font-size="15">A day of the crontab in {minutes:g} minutes: what the programs that run all the time hold</text>',
        f'<text x="40" y="42" fill="#57606a">Measured by scripts/chaos --leaks; {starts} programs were started meanwhile, and the page was read each time.</text>',
    ]
    for n, panel in enumerate(SERIES):
        left, top = 40 + n % columns * (wide + gap), 70 + n // columns * (high + gap)
        lines = {of: values for (name, of), values in samples.items() if name == panel}
        most = max((v for values in lines.values() for _, v in values), default=1) or 1
        out.append(f'<text x="{left}" y="{top - 8}" font-weight="bold">{panel}</text>')
        out.append(f'<path d="M{left} {top}V{top + high}H{left + wide}" fill="none" stroke="#8c959f"/>')
        out.append(f'<text x="{left - 4}" y="{top + 10}" text-anchor="end" fill="#57606a">{most:.3g}</text><text x="{left - 4}" y="{top + high}" text-anchor="end" fill="#57606a">0</text>')
        for hour in (0, 6, 12, 18, 24):
            out.append(f'<text x="{left + wide * hour / 24:.0f}" y="{top + high + 14}" text-anchor="middle" fill="#57606a">{hour}:00</text>')
        for colour, (of, values) in zip(colours, lines.items()):
            points = " ".join(f"{left + wide * hour / 24:.1f},{top + high - high * value / most:.1f}" for hour, value in values)
            out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(lines) > 1:
            names = "  ".join(f'<tspan fill="{colour}">{of}</tspan>' for colour, of in zip(colours, lines))
            out.append(f'<text x="{left + wide}" y="{top - 8}" text-anchor="end">{names}</text>')
    return "\n".join([*out, "</svg>", ""])
