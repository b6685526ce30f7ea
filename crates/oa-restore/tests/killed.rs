//! Killed at any point: the live database is as it was or wholly restored, no server is left running, and the same command works.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::{Restored, Service, done};

/// Rows that were there then, and that are there now.
const THEN: i64 = 4000;
const NOW: i64 = 10;

struct Scene {
    service: Service,
    then: String,
    target: PathBuf,
}

impl Scene {
    fn set() -> Self {
        let service = Service::start_with("kind = \"physical\"\npaths = [\"precious\"]\n", &[]);
        fs::create_dir(service.path("precious")).unwrap();
        for n in 0..200 {
            let text = format!("{n} 蓝图 ").repeat(1000);
            fs::write(service.path(&format!("precious/{n}")), text).unwrap();
        }
        service.init();
        service.sql(&format!(
            "CREATE TABLE t AS SELECT n AS id, md5(n::text) AS v FROM generate_series(1, {THEN}) n; ALTER TABLE t ADD PRIMARY KEY (id)"
        ));
        service.backup(&["full"]).ok();
        let then = service.now();
        let target = service.path("restored");
        let scene = Self {
            service,
            then,
            target,
        };
        scene.spoil();
        scene.service.backup(&["incremental"]).ok();
        scene
    }

    /// What makes a restore wanted.
    fn spoil(&self) {
        self.service.sql(&format!("DELETE FROM t WHERE id > {NOW}"));
    }

    fn arguments(&self, command: &'static str) -> Vec<&str> {
        let target = self.target.to_str().unwrap();
        let mut arguments = vec![command];
        match command {
            "cluster" => arguments.extend(["--to", &self.then, "--target-dir", target]),
            "files" => arguments.extend(["--to", "latest", "--target-dir", target]),
            "database" => arguments.extend(["--to", &self.then, "--into", "new", "--swap"]),
            "table" => arguments.extend(["t", "--to", &self.then]),
            _ => {}
        }
        arguments.push("--yes");
        arguments
    }

    /// After a kill: nothing runs, nothing is half done.
    fn look(&self, when: &str) {
        let folder = self.service.dir.path();
        oa_testkit::wait_until("the private server to end", Duration::from_secs(60), || {
            support::working_in(folder).is_empty()
        });
        let rows = self.service.count("t");
        assert!(rows == NOW || rows == THEN, "{when}: {rows} rows");
        let keyed = self
            .service
            .count("pg_index WHERE indrelid = 't'::regclass AND indisprimary");
        assert_eq!(keyed, 1, "{when}");
        // Wholly restored: wanted again, for the next one.
        self.spoil();
        for kept in ["database", "table"] {
            self.drop_kept(kept);
        }
        // A directory without the marker is whole.
        if self.target.exists() && !self.target.join(".oa-restore").exists() {
            self.whole();
            fs::remove_dir_all(&self.target).unwrap();
        }
    }

    fn drop_kept(&self, kind: &str) {
        let list = match kind {
            "database" => {
                "SELECT 'DROP DATABASE ' || quote_ident(datname) FROM pg_database WHERE datname LIKE 'oa_before_%'"
            }
            _ => {
                "SELECT 'DROP TABLE ' || oid::regclass FROM pg_class WHERE relname LIKE 't_before_%' AND relkind = 'r'"
            }
        };
        let mut client = self.service.superuser();
        for row in client.query(list, &[]).unwrap() {
            client.batch_execute(row.get(0)).unwrap();
        }
    }

    fn whole(&self) {
        let entries = fs::read_dir(&self.target).unwrap().count();
        if self.target.join("PG_VERSION").exists() {
            assert!(!self.target.join("recovery.signal").exists());
            assert!(self.target.join("postgresql.auto.conf").exists());
        } else if entries > 0 {
            let inside = self.service.path("precious").canonicalize().unwrap();
            let inside = self.target.join(inside.strip_prefix("/").unwrap());
            for n in 0..200 {
                let text = fs::read_to_string(inside.join(n.to_string())).unwrap();
                assert_eq!(text, format!("{n} 蓝图 ").repeat(1000));
            }
        }
    }

    /// The same command, left alone.
    fn finish(&self, command: &'static str) {
        let mut arguments = self.arguments(command);
        if command == "cluster" {
            arguments.extend(["--start", "--format", "json"]);
        }
        let finished = self.service.restore(&arguments).ok();
        match command {
            "cluster" => {
                let restored = Restored::of(&finished.json()[0]);
                let mut client = restored.connect(&self.service);
                assert_eq!(support::count(&mut client, "t"), THEN);
            }
            "files" => self.whole(),
            "drill" => assert_eq!(self.service.count("t"), NOW),
            _ => assert_eq!(self.service.count("t"), THEN),
        }
        assert_eq!(self.service.left(), Vec::<String>::new());
        let left = self
            .service
            .count("pg_class WHERE relname LIKE 'oa_restore%'")
            + self
                .service
                .count("pg_database WHERE datname LIKE 'oa_restore%' OR datname = 'new'");
        assert_eq!(left, 0);
    }

    fn at_every_point(&self, command: &'static str, points: &[&str]) {
        let arguments = self.arguments(command);
        for point in ["run.begun"]
            .iter()
            .chain(points)
            .chain(&["run.finish.begin", "run.finish.stored"])
        {
            self.service.killed_at(point, &arguments);
            self.look(point);
        }
    }

    /// More of them by hand: NEXTEST_PROFILE=long OA_RESTORE_KILLS=300 scripts/test random_moments
    fn at_random_moments(&self, command: &'static str) {
        let kills: u32 = std::env::var("OA_RESTORE_KILLS")
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(8);
        let arguments = self.arguments(command);
        let began = Instant::now();
        done(&mut self.service.command("oa-restore", &arguments)).ok();
        let length = began.elapsed();
        if ["database", "table"].contains(&command) {
            assert_eq!(self.service.count("t"), THEN);
        }
        self.look("at first");
        for n in 0..kills {
            let mut child = self
                .service
                .command("oa-restore", &arguments)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // Spread over the whole length of a restore; not a wait for something.
            std::thread::sleep(length * (n + 1) / (kills + 1));
            child.kill().unwrap();
            child.wait().unwrap();
            self.look(&format!("kill {n}"));
        }
        self.finish(command);
    }
}

/// Both on one scene.
fn killed_everywhere(command: &'static str, points: &[&str]) {
    let scene = Scene::set();
    scene.at_every_point(command, points);
    scene.at_random_moments(command);
}

#[test]
fn a_cluster_at_every_named_point_and_at_random_moments() {
    let points = ["restore.copied", "restore.changing", "restore.recovered"];
    killed_everywhere("cluster", &points);
}

#[test]
fn a_database_at_every_named_point_and_at_random_moments() {
    let points = [
        "restore.copied",
        "restore.recovered",
        "restore.dumped",
        "restore.brought",
        "restore.swapping",
    ];
    killed_everywhere("database", &points);
}

#[test]
fn a_table_at_every_named_point_and_at_random_moments() {
    let points = ["restore.copied", "restore.recovered", "restore.brought"];
    killed_everywhere("table", &points);
}

#[test]
fn files_at_every_named_point_and_at_random_moments() {
    killed_everywhere("files", &["restore.copied"]);
}

#[test]
fn a_drill_at_every_named_point_and_at_random_moments() {
    let points = ["restore.copied", "restore.recovered", "restore.drill"];
    killed_everywhere("drill", &points);
}
