//! A disk that fills in the middle of a restore: it is named, nothing half done counts, and after room was made the same command works.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::support;

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use oa_testkit::SmallDisk;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use support::{Restored, Service};

fn mount(service: &Service, options: &str) -> Option<SmallDisk> {
    let disk = SmallDisk::mount(&service.path("small"), options)?;
    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(disk)
}

fn grow(disk: &SmallDisk, options: &str) {
    let grown = Command::new("mount")
        .args(["-o", &format!("remount,{options}")])
        .arg(disk.path())
        .status();
    assert!(grown.unwrap().success());
}

/// Takes all that is left.
fn fill(disk: &Path) {
    let ballast = File::create(disk.join("ballast")).unwrap();
    for _ in 0..20 {
        let free = statvfs(disk).unwrap();
        let bytes = free.f_bavail * free.f_frsize;
        let used = ballast.metadata().unwrap().len();
        if bytes > 0 {
            let _ = fallocate(&ballast, FallocateFlags::empty(), used, bytes);
        }
    }
}

fn set_staging(service: &Service) {
    let text = fs::read_to_string(service.config()).unwrap() + "staging = \"small/staging\"\n";
    fs::write(service.config(), text).unwrap();
}

#[test]
fn under_a_cluster() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    let Some(disk) = mount(&service, "600m,nr_inodes=400") else {
        return;
    };
    service.init();
    service.sql("CREATE TABLE t AS SELECT n AS id, repeat(md5(n::text), 20) AS v FROM generate_series(1, 60000) n");
    service.backup(&["full"]).ok();
    let inside = disk.path().join("data");
    let arguments = [
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        inside.to_str().unwrap(),
        "--start",
        "--format",
        "json",
    ];
    // First it has no room for so many files.
    let done = service.restore(&arguments);
    assert!(
        done.stderr
            .contains(&format!("the disk of {} is full", inside.display())),
        "{done:?}"
    );
    done.failed(1, "run the same command again, which goes on");
    assert!(inside.join(".oa-restore").exists());
    // Then somebody else takes all the room, as soon as it has been measured.
    grow(&disk, "nr_inodes=100000");
    let said = (0..5).find_map(|_| {
        let _ = fs::remove_dir_all(&inside);
        let mut child = service
            .command("oa-restore", &arguments[..5])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        oa_testkit::wait_until("it to begin", Duration::from_secs(60), || {
            inside.join(".oa-restore").exists()
        });
        fill(disk.path());
        let status = child.wait().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
        fs::remove_file(disk.path().join("ballast")).unwrap();
        // It may have been faster.
        (!status.success()).then_some((status.code(), said))
    });
    let (code, said) = said.unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("the disk of {} is full", inside.display())),
        "{said}"
    );
    assert!(inside.join(".oa-restore").exists());
    // What is there already is not asked for again.
    let restored = Restored::of(&service.restore(&arguments).ok().json()[0]);
    assert_eq!(support::count(&mut restored.connect(&service), "t"), 60000);
}

#[test]
fn what_an_interrupted_cluster_has_copied_is_not_asked_for_again() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    let Some(disk) = mount(&service, "600m") else {
        return;
    };
    service.init();
    service.sql("CREATE TABLE t AS SELECT n AS id, repeat(md5(n::text), 20) AS v FROM generate_series(1, 120000) n");
    service.backup(&["full"]).ok();
    let inside = disk.path().join("data");
    let arguments = [
        "cluster",
        "--to",
        "latest",
        "--target-dir",
        inside.to_str().unwrap(),
        "--format",
        "json",
    ];
    service.killed_at("restore.copied", &arguments);
    let held = 600
        - statvfs(disk.path())
            .map(|d| d.f_bavail * d.f_frsize / (1 << 20))
            .unwrap();
    assert!(held > 100, "{held}");
    grow(&disk, &format!("size={}m", held + 140));
    service.restore(&arguments).ok();
}

#[test]
fn under_files() {
    let service = Service::start_with("kind = \"physical\"\npaths = [\"precious\"]\n", &[]);
    let Some(disk) = mount(&service, "32m,nr_inodes=100") else {
        return;
    };
    fs::create_dir(service.path("precious")).unwrap();
    for n in 0..200 {
        fs::write(service.path(&format!("precious/{n}")), n.to_string()).unwrap();
    }
    service.init();
    service.backup(&["full"]).ok();
    let inside = disk.path().join("files");
    let arguments = [
        "files",
        "--to",
        "latest",
        "--target-dir",
        inside.to_str().unwrap(),
    ];
    service.restore(&arguments).failed(
        1,
        "are needed to restore; free space there, or restore to another disk",
    );
    assert!(!inside.exists());
    grow(&disk, "size=200m,nr_inodes=100");
    service
        .restore(&arguments)
        .failed(1, "run the same command again");
    assert!(inside.join(".oa-restore").exists());
    grow(&disk, "nr_inodes=10000");
    service.restore(&arguments).ok();
    let from = service.path("precious").canonicalize().unwrap();
    let to = inside.join(from.strip_prefix("/").unwrap());
    assert_eq!(fs::read_dir(to).unwrap().count(), 200);
}

#[test]
fn under_a_database_on_its_way_out_of_the_private_server() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    let Some(disk) = mount(&service, "400m") else {
        return;
    };
    set_staging(&service);
    service.init();
    // Small on the disk, and large when it is written out.
    service.sql("CREATE TABLE t AS SELECT n AS id, repeat('x', 1000000) AS v FROM generate_series(1, 400) n");
    service.backup(&["full"]).ok();
    let arguments = ["database", "--to", "latest", "--into", "beside"];
    let done = service.restore(&arguments);
    assert!(done.stderr.contains("small/staging is full"), "{done:?}");
    done.failed(1, "set staging in [backup] to a larger disk");
    assert_eq!(
        service.count("pg_database WHERE datname LIKE 'oa_restore%' OR datname = 'beside'"),
        0
    );
    assert_eq!(service.count("t"), 400);
    assert_eq!(
        service.count("oa.runs WHERE task = 'restore-database' AND status = 'failed'"),
        1
    );
    grow(&disk, "size=2g");
    service.restore(&arguments).ok();
    grow(&disk, "size=110m");
    service
        .restore(&["database", "--to", "latest", "--into", "again"])
        .failed(1, "are needed to restore; free space there, or set staging");
    grow(&disk, "size=400m,nr_inodes=300");
    service
        .restore(&["table", "t", "--to", "latest", "--as", "copy"])
        .failed(1, "small/staging is full");
    grow(&disk, "size=2g,nr_inodes=100000");
    service
        .restore(&["table", "t", "--to", "latest", "--as", "copy"])
        .ok();
}

#[test]
fn under_the_live_server() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    let Some(disk) = mount(&service, "60m") else {
        return;
    };
    let owner = fs::metadata(service.server.data_dir()).unwrap();
    let space = disk.path().join("space");
    fs::create_dir(&space).unwrap();
    std::os::unix::fs::chown(&space, Some(owner.uid()), Some(owner.gid())).unwrap();
    service.sql(&format!(
        "CREATE TABLESPACE small LOCATION '{}'",
        space.display()
    ));
    service.sql("CREATE TABLE t TABLESPACE small AS SELECT n AS id, repeat(md5(n::text), 20) AS v FROM generate_series(1, 55000) n");
    service.init();
    service.backup(&["full"]).ok();
    let database = [
        "database", "--to", "latest", "--into", "back", "--swap", "--yes",
    ];
    let table = ["table", "t", "--to", "latest", "--yes"];
    for arguments in [&database[..], &table] {
        let done = service.restore(arguments);
        assert!(
            done.stderr.contains("the disk of the live server is full"),
            "{done:?}"
        );
        done.failed(1, "what was live is as it was");
        assert_eq!(service.count("t"), 55000);
        assert_eq!(
            service.count("pg_class WHERE relname LIKE 'oa_restore%'"),
            0
        );
        assert_eq!(
            service.count("pg_database WHERE datname LIKE 'oa_restore%' OR datname = 'back'"),
            0
        );
    }
    grow(&disk, "size=300m");
    service.restore(&table).ok();
    service.restore(&database).ok();
    assert_eq!(service.count("t"), 55000);
}

#[test]
fn the_live_servers_disk_is_measured_before_anything_is_restored() {
    let mut service = Service::start_with("kind = \"physical\"\n", &[]);
    service.init();
    service.sql("CREATE TABLE t AS SELECT n AS id, repeat(md5(n::text), 20) AS v FROM generate_series(1, 30000) n");
    service.backup(&["full"]).ok();
    service.server.stop();
    let data = service.server.data_dir();
    let aside = data.with_extension("aside");
    let owner = fs::metadata(&data).unwrap();
    fs::rename(&data, &aside).unwrap();
    let disk = SmallDisk::mount(&data, "1g");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(aside.join("."))
        .arg(&data)
        .status();
    assert!(copied.unwrap().success());
    std::os::unix::fs::chown(&data, Some(owner.uid()), Some(owner.gid())).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    service.server.start_again();
    let Some(disk) = disk else { return };
    let used_mb = || {
        let disk = statvfs(disk.path()).unwrap();
        (disk.f_blocks - disk.f_bavail) * disk.f_frsize / (1 << 20)
    };
    let arguments = ["database", "--to", "latest", "--into", "beside"];
    grow(&disk, &format!("size={}m", used_mb() + 90));
    service
        .restore(&arguments)
        .failed(1, "free space on the live server's disk");
    grow(&disk, &format!("size={}m", used_mb() + 200));
    service.restore(&arguments).ok();
}
