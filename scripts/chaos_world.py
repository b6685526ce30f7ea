"""What scripts/chaos breaks: PostgreSQL with a standby, sites and a robot, two machines with the programs, and the clock of them all."""

import datetime
import mmap
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from bench_lib import BIN, ROOT

TARGET = pathlib.Path(os.environ.get("OA_BIN", pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug")).resolve()
ZONE = datetime.timezone(datetime.timedelta(hours=8))
FIRST_DAY = datetime.date(datetime.date.today().year + 1, 2, 1)
TASKS = {"zhihui-full-view": "30 9 * * *", "zhihui-reports": "0 12 * * *", "fangqi-morning": "50 8 * * *"}
OWN_ROWS = 40
MARK = "OA_CHAOS"
# No part of the folder's name: what contains a password is not printed.
SECRET = "password-of-chaos"
MOUNTS = os.geteuid() == 0
LANGUAGES = ["zh_CN.UTF-8", "de_DE.UTF-8"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition, limit=60):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {limit} s in vain for {what}")
        time.sleep(0.05)


def disk(folder, size):
    """A small disk of its own, as root."""
    if MOUNTS:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(folder)], check=True)


class Clock:
    """The time of servers, sites and programs (chaos_clock.c): a day goes by in seconds. Each name can be wrong by itself."""

    def __init__(self, folder, names):
        self.folder, self.offset, self.errors = folder, 0.0, dict.fromkeys(names, 0.0)
        folder.mkdir(mode=0o755)
        self.library = folder / "clock.so"
        made = subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", self.library, ROOT / "scripts/chaos_clock.c"], check=False)
        if made.returncode:
            sys.exit("the clock cannot be compiled; run: scripts/setup")
        self.shared = {}
        for name in names:
            (folder / name).write_bytes(bytes(8))
            (folder / name).chmod(0o644)
            with open(folder / name, "r+b") as file:
                self.shared[name] = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")

    def write(self):
        for name, error in self.errors.items():
            self.shared[name][0] = int((self.offset + error) * 1e9)

    def set(self, day, hour, minute):
        self.offset = datetime.datetime.combine(day, datetime.time(hour, minute), ZONE).timestamp() - time.time()
        self.write()

    def advance(self, seconds):
        self.offset += seconds
        self.write()

    def wrong(self, name, seconds):
        self.errors[name] = seconds
        self.write()

    def env(self, name):
        return {"LD_PRELOAD": str(self.library), "CHAOS_CLOCK": str(self.folder / name)}


class Proxy:
    """Between the programs and a server."""

    def __init__(self, to):
        self.to, self.mode, self.open = to, "pass", set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        if self.mode == "refuse":
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.to), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open |= {client, server}
        for one, other in [(client, server), (server, client)]:
            threading.Thread(target=self.pump, args=(one, other), daemon=True).start()

    def pump(self, one, other):
        try:
            while data := one.recv(65536):
                while self.mode == "blackhole":
                    time.sleep(0.05)
                if self.mode == "slow":
                    time.sleep(0.1)
                commits = self.mode in ("no commit", "no answer") and one.getpeername()[1] != self.to and b"COMMIT" in data
                if commits and self.mode == "no commit":
                    break
                other.sendall(data)
                if commits:
                    # It is carried out, and nobody hears of it.
                    one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for end in (one, other):
            self.open.discard(end)
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def drop(self):
        for end in list(self.open):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Node:
    """One server, on a small disk of its own."""

    def __init__(self, home, env):
        self.home, self.env, self.port = home, env, free_port()
        self.user = "postgres" if os.geteuid() == 0 else None
        self.data = home / "disk/data"
        (home / "disk").mkdir(parents=True)
        disk(home / "disk", "1500m")
        if self.user:
            ids = pwd.getpwnam(self.user)
            for path in (home, home / "disk"):
                os.chown(path, ids.pw_uid, ids.pw_gid)
        self.proxy = Proxy(self.port)

    def call(self, program, *arguments, check=True, env=None):
        command = [str(BIN / program), *map(str, arguments)]
        done = subprocess.run(
            command, check=False, user=self.user, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if check else subprocess.DEVNULL, cwd=self.home, env=env
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")

    def make(self):
        (self.home / "pw").write_text("superuser\n")
        (self.home / "pw").chmod(0o644)
        arguments = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={self.home / 'pw'}", "-E", "UTF8", "--locale=C.UTF-8", "--wal-segsize=1", "-N"]
        self.call("initdb", "-D", self.data, "-U", "root", *arguments)
        with open(self.data / "postgresql.conf", "a", encoding="utf8") as conf:
            # Processes die here, and machines do not: what is written is there without fsync.
            conf.write(
                "log_line_prefix = '%m [%p] %e '\nlisten_addresses = '127.0.0.1'\nmax_connections = 90\nmax_wal_size = '64MB'\nmin_wal_size = '4MB'\nwal_keep_size = '32MB'\nfsync = off\n"
                "max_slot_wal_keep_size = '100MB'\nwal_retrieve_retry_interval = '200ms'\nwal_sender_timeout = '5s'\nwal_receiver_timeout = '5s'\nshared_buffers = '32MB'\n"
            )

    def start(self):
        options = f"-p {self.port} -c unix_socket_directories={self.home}"
        self.call("pg_ctl", "-D", self.data, "-l", self.home / "log", "-w", "-t", "60", "-o", options, "start", check=False, env=self.env)

    def stop(self, mode):
        self.call("pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", "30", "stop", check=False)

    def pids(self):
        """The postmaster and its children."""
        try:
            master = int((self.data / "postmaster.pid").read_text().split()[0])
            children = pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split()
            return [master, *map(int, children)]
        except (OSError, ValueError, IndexError):
            return []

    def signal(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        pids = self.pids()
        self.signal(signal.SIGKILL)
        wait_for("the end of a server", lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids), 20)

    def sql(self, text, database="oa", limit=60):
        command = [str(BIN / "psql"), "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", str(self.home), "-p", str(self.port), "-U", "root", database, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env={"PATH": "/usr/bin:/bin", "PGCONNECT_TIMEOUT": "5"})
        if done.returncode:
            raise RuntimeError(f"{text}: {done.stderr}")
        return done.stdout.strip()


class Cluster:
    """A primary and its synchronous standby: what is confirmed is on both."""

    def __init__(self, home, clock):
        locales = home / "locales"
        locales.mkdir()
        for language in LANGUAGES:
            name, charset = language.split(".")
            subprocess.run(["localedef", "-i", name, "-f", charset, str(locales / language)], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.languages = ["C", *(p.name for p in locales.iterdir())]
        env = {"PATH": "/usr/bin:/bin", "LOCPATH": f"{locales}:/usr/lib/locale", "LANG": "C.UTF-8", **clock.env("server")}
        self.primary, self.standby = (Node(home / name, env) for name in ("pg1", "pg2"))
        self.nodes = [self.primary, self.standby]
        self.fresh = True
        self.primary.make()
        self.primary.start()

    def sql(self, text, database="oa", limit=60):
        return self.primary.sql(text, database, limit)

    def attach(self):
        """Makes the standby anew from the primary."""
        self.standby.stop("immediate")
        shutil.rmtree(self.standby.data, ignore_errors=True)
        self.standby.call("pg_basebackup", "-D", self.standby.data, "-h", self.primary.home, "-p", self.primary.port, "-U", "root", "-R", "-X", "stream", "-c", "fast", "-N")
        with open(self.standby.data / "postgresql.auto.conf", "a", encoding="utf8") as conf:
            conf.write("synchronous_standby_names = ''\n")
        self.standby.start()
        wait_for("the standby", lambda: self.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name = 'walreceiver'") == "1")
        self.synchronous("*")
        self.fresh = True

    def synchronous(self, names):
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.sql("SELECT pg_reload_conf()")

    def fail_over(self):
        """The primary dies, and the standby becomes the one that may write."""
        if not self.fresh:
            return
        self.primary.kill()
        self.standby.call("pg_ctl", "-D", self.standby.data, "-w", "promote", check=False)
        self.primary, self.standby = self.standby, self.primary
        self.fresh = False

    def mend(self, password):
        """Until the primary takes this password again."""
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.proxy.mode = "pass"
            (node.home / "disk/filler").unlink(missing_ok=True)
        if self.fresh and not self.standby.pids():
            self.standby.start()
        for _ in range(60):
            try:
                self.sql(f"ALTER ROLE chaos PASSWORD '{password}'", limit=20)
                break
            except (RuntimeError, subprocess.TimeoutExpired):
                self.primary.start()
                time.sleep(0.3)
        if not self.fresh:
            self.attach()

    def url(self, password, database):
        hosts = ",".join(f"127.0.0.1:{node.proxy.port}" for node in self.nodes)
        return f"postgresql://chaos:{password}@{hosts}/{database}?target_session_attrs=read-write"

    def close(self):
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.stop("immediate")


class Machine:
    """A state directory of its own on a small disk, and a configuration."""

    def __init__(self, world, name, database="oa", scheduled=True):
        self.name, self.database, self.folder = name, database, world.home / name
        self.clock = name if name in world.clock.errors else "a"
        self.state = self.folder / "state"
        self.folder.mkdir(mode=0o700)
        self.state.mkdir(mode=0o700)
        disk(self.state, "96m")
        sources = self.folder / "sources"
        sources.mkdir(mode=0o700)
        for task, schedule in TASKS.items():
            lines = (ROOT / f"crates/oa-crawl/sources/{task}.toml").read_text().splitlines()
            text = "\n".join(f'schedule = "{schedule}"' if line.startswith("schedule") else line for line in lines)
            (sources / f"{task}.toml").write_text(text + "\n")
        providers = "".join(f'[providers.{p}]\nbase = "http://127.0.0.1:{world.sites.port}/{p}"\n' for p in ("zhihui", "fangqi"))
        enabled = ", ".join(f'"{task}"' for task in TASKS) if scheduled else ""
        own, backup = ('schedule = "0 12 * * *"\n', '[backup.schedule]\nincremental = "40 8 * * *"\n') if scheduled else ("", "")
        (self.folder / "oa.toml").write_text(
            f'state_dir = "{self.state}"\ncalendar = "{world.home}/calendar.toml"\n[database]\nurl = "env:DATABASE_URL"\nconnect_timeout = "2s"\nstatement_timeout = "10s"\n{providers}'
            f'[crawl]\nsources = "{sources}"\nenable = [{enabled}]\nretries = 1\nretry_delay = "100ms"\ntimeout = "10s"\ncatch_up = "all"\ncatch_up_pause = "0s"\n'
            f'[exec.own]\n{own}'
            f'[[alert.channels]]\nname = "ops"\nkind = "dingtalk"\nurl = "env:ROBOT"\nper_minute = 6000\n'
            f'[alert]\ngroup_wait = "0s"\nrepeat = "30d"\ndisk_warning = 0.0\ndisk_critical = 0.0\n'
            f'off = ["backup_unverified", "drill_overdue", "data_falling", "data_stale", "partial_streak"]\n'
            f'[backup]\nrepository = "{world.repository}"\npassword = "env:BACKUP_PASSWORD"\nkind = "physical"\nretries = 0\nverify_recovery = false\n'
            f'staging = "{world.home}/staging-{name}"\nrpo = "{"72h" if scheduled else "9999d"}"\nfull_every = "{"30d" if scheduled else "9999d"}"\n{backup}'
        )
        self.write_env(world)

    def write_env(self, world):
        path = self.folder / ".env"
        path.touch(mode=0o600)
        path.write_text(
            f"DATABASE_URL={world.cluster.url(world.password, self.database)}\nZHIHUI_AUTH_TOKEN=sim-token\nBACKUP_PASSWORD=a-key-for-chaos\n"
            f"ROBOT={world.base}/dingtalk/robot/send?access_token=robot-of-chaos\n"
        )


class World:
    """All of it, and the programs that were started in it."""

    def __init__(self, folder=None, reference=True, scheduled=True):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="oa-chaos-", dir=folder))
        self.home.chmod(0o755)
        self.machines, self.cluster, self.sim = [], None, None
        try:
            self.make(reference, scheduled)
        except BaseException:
            self.close(keep=True)
            raise

    def make(self, reference, scheduled):
        self.password = f"{SECRET}-0"
        self.clock = Clock(self.home / "clock", ["server", "a", "b"])
        self.clock.set(FIRST_DAY - datetime.timedelta(days=1), 18, 0)
        self.cluster = Cluster(self.home, self.clock)
        self.cluster.sql(f"CREATE ROLE chaos LOGIN SUPERUSER PASSWORD '{self.password}'", "postgres")
        for name in ("oa", "reference"):
            self.cluster.sql(f"CREATE DATABASE {name} OWNER chaos", "postgres")
        self.cluster.attach()
        (self.home / "tmp").mkdir()
        (self.home / "tmp").chmod(0o1777)
        self.env = {"PATH": f"{TARGET}:/usr/bin:/bin", MARK: str(os.getpid()), "HOME": str(self.home), "TMPDIR": str(self.home / "tmp"), "LANG": "C.UTF-8"}
        self.start_sim()
        years = (f"[[year]]\nyear = {FIRST_DAY.year + n}\nclosed = []\n" for n in range(4))
        (self.home / "calendar.toml").write_text("".join(years))
        self.repository = self.home / "repository-disk/repository"
        self.repository.parent.mkdir(mode=0o700)
        disk(self.repository.parent, "2g")
        self.machines = [Machine(self, name, scheduled=scheduled) for name in ("a", "b")]
        self.reference = Machine(self, "reference", "reference") if reference else None
        for machine in [self.machines[0]] + ([self.reference] if reference else []):
            self.must(machine, "oa-migrate", "init")
            # From now on they are expected.
            self.must(machine, "oa-crawl", "run", "--due")
        self.cluster.sql("CREATE TABLE own (day date, n int, PRIMARY KEY (day, n))")
        self.must(self.machines[0], "oa-backup", "init")
        self.must(self.machines[0], "oa-backup", "full")
        # What the configuration schedules is expected since the first check: from the first round on.
        self.must(self.machines[0], "oa-alert", "check")

    def start_sim(self):
        self.messages = self.home / "messages.txt"
        command = [TARGET / "oa-sim", "--messages", self.messages, "--rate-limit", "1000000"]
        env = {**self.env, **self.clock.env("server")}
        self.sim = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, env={k: v for k, v in env.items() if k != MARK})
        self.base = self.sim.stdout.readline().split()[-1]
        self.sites = Proxy(int(self.base.rsplit(":", 1)[1]))

    def post(self, path, text):
        request = urllib.request.Request(f"{self.base}/_sim/{path}", data=text.encode(), method="POST")
        urllib.request.urlopen(request, timeout=10).read()

    def start(self, machine, program, *arguments):
        command = [str(TARGET / program), "--config", str(machine.folder / "oa.toml"), *map(str, arguments)]
        log = open(machine.folder / "log", "ab")
        env = {**self.env, **self.clock.env(machine.clock)}
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, start_new_session=True, cwd=self.home)
        log.close()
        process.machine, process.program, process.what = machine, program, f"{machine.name}: {program} {' '.join(map(str, arguments))}"
        return process

    def serve(self, machine):
        port = free_port()
        process = self.start(machine, "oa-report", "serve", "--listen", f"127.0.0.1:{port}")
        process.port = port
        return process

    def must(self, machine, *command):
        code = self.start(machine, *command).wait()
        if code:
            sys.exit(f"{machine.name}: {' '.join(map(str, command))} ended with {code}; see {machine.folder}/log")

    def own_program(self, day):
        """A program that is no source: rows of its own, twice without harm."""
        node = self.cluster.primary
        insert = f"INSERT INTO own SELECT '{day}', n FROM generate_series(1, {OWN_ROWS}) n ON CONFLICT DO NOTHING"
        return ["psql", "-qX", "-v", "ON_ERROR_STOP=1", "-h", str(node.home), "-p", str(node.port), "-U", "root", "oa", "-c", insert]

    def close(self, keep):
        if self.cluster:
            self.cluster.close()
        if self.sim:
            self.sim.terminate()
        for machine in self.machines if keep else []:
            shutil.copytree(machine.state, self.home / f"state-{machine.name}", ignore_dangling_symlinks=True, dirs_exist_ok=True)
        for node in self.cluster.nodes if keep and self.cluster else []:
            shutil.copy(node.home / "log", self.home / f"log-{node.home.name}")
        if MOUNTS:
            mounts = pathlib.Path("/proc/mounts").read_text().split("\n")
            for path in [line.split()[1] for line in mounts if line and line.split()[1].startswith(f"{self.home}/")]:
                subprocess.run(["umount", "-l", path], check=False)
        if not keep:
            shutil.rmtree(self.home, ignore_errors=True)
