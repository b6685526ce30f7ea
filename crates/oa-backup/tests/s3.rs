//! A repository on S3-compatible storage, also when it fails in between. The storage is moto's server, which `scripts/setup --tests`
//! installs.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{Done, Service, done};

/// A storage service with a bucket `oa-backups`.
struct Storage {
    server: Child,
    port: u16,
}

impl Storage {
    /// `None`, with a word, where moto is not installed.
    fn start() -> Option<Self> {
        let program = oa_testkit::workspace_root().join("target/moto/bin/moto_server");
        if !program.is_file() {
            oa_testkit::skip("moto's S3 server", "scripts/setup --tests");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let storage = Self { server, port };
        oa_testkit::wait_until("the storage to answer", Duration::from_secs(60), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            stream,
            "PUT /oa-backups HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Some(storage)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A line to the storage on which every third connection is answered with "slow down", and others break after some bytes.
fn bad_line(to: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let faults = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&faults);
    thread::spawn(move || {
        for (n, client) in listener.incoming().enumerate() {
            let (Ok(client), Ok(storage)) = (client, TcpStream::connect(("127.0.0.1", to))) else {
                return;
            };
            let counter = Arc::clone(&counter);
            thread::spawn(move || serve(client, storage, n, &counter));
        }
    });
    (port, faults)
}

fn serve(mut client: TcpStream, storage: TcpStream, n: usize, faults: &AtomicUsize) {
    if n % 3 == 1 {
        faults.fetch_add(1, Ordering::Relaxed);
        let _ = client.set_read_timeout(Some(Duration::from_millis(200)));
        let mut request = [0; 65536];
        while matches!(client.read(&mut request), Ok(1..)) {}
        let _ = client.write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 36\r\nConnection: close\r\n\r\n<Error><Code>SlowDown</Code></Error>");
        return;
    }
    let limit = if n % 3 == 2 { 200_000 } else { usize::MAX };
    let (mut from_client, mut to_storage) =
        (client.try_clone().unwrap(), storage.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut &storage, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
    let (mut sent, mut buffer) = (0, [0; 16384]);
    while let Ok(read @ 1..) = from_client.read(&mut buffer) {
        sent += read;
        if sent > limit || to_storage.write_all(&buffer[..read]).is_err() {
            faults.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    let _ = from_client.shutdown(Shutdown::Both);
    let _ = to_storage.shutdown(Shutdown::Both);
}

fn service(port: u16) -> Service {
    let service = Service::start("");
    let text = format!(
        "state_dir = \"state\"\n[backup]\nrepository = \"s3://oa-backups/one\"\npassword = \"env:OA_BACKUP_PASSWORD\"\nkind = \"logical\"\nretries = 0\n\
         [backup.s3]\nendpoint = \"http://127.0.0.1:{port}\"\nregion = \"us-east-1\"\naccess_key = \"env:S3_ACCESS_KEY\"\nsecret_key = \"env:S3_SECRET_KEY\"\npath_style = true\n"
    );
    std::fs::write(service.path("oa.toml"), text).unwrap();
    service
}

fn run(service: &Service, arguments: &[&str]) -> Done {
    let mut command = service.command(arguments);
    command
        .env("S3_ACCESS_KEY", "an-access-key")
        .env("S3_SECRET_KEY", "a-secret-access-key");
    done(command.output().unwrap())
}

#[test]
fn a_repository_can_be_in_a_bucket_and_survives_a_bad_line() {
    let Some(storage) = Storage::start() else {
        return;
    };
    let service = service(storage.port);
    let absent = run(&service, &["full"]).expect(78);
    assert!(
        absent.stderr.contains("oa-backup init"),
        "{}",
        absent.stderr
    );
    run(&service, &["init"]).expect(0);
    run(&service, &["full"]).expect(0);
    run(&service, &["verify", "--read-data"]).expect(0);
    let (port, faults) = bad_line(storage.port);
    let text = std::fs::read_to_string(service.path("oa.toml")).unwrap();
    let text = text.replace(&format!(":{}\"", storage.port), &format!(":{port}\""));
    std::fs::write(service.path("oa.toml"), text).unwrap();
    service
        .db()
        .batch_execute("CREATE TABLE more AS SELECT i, md5(random()::text) AS t FROM generate_series(1, 30000) i")
        .unwrap();
    for _ in 0..2 {
        run(&service, &["incremental"]).expect(0);
    }
    run(&service, &["verify", "--read-data"]).expect(0);
    assert!(faults.load(Ordering::Relaxed) > 2, "the line was good");
    assert_eq!(
        run(&service, &["list", "--format", "json"])
            .expect(0)
            .json()
            .len(),
        3
    );
    assert_eq!(
        service.texts("SELECT DISTINCT repository FROM oa.backups"),
        ["s3://oa-backups/one"]
    );
    let mut drill = service.restore(&["drill", "--yes"]);
    drill
        .env("S3_ACCESS_KEY", "an-access-key")
        .env("S3_SECRET_KEY", "a-secret-access-key");
    done(drill.output().unwrap()).expect(0);
    let repaired = run(&service, &["repair", "--yes"]).expect(78);
    assert!(
        repaired.stderr.contains("folders only"),
        "{}",
        repaired.stderr
    );
}

#[test]
fn an_unreachable_storage_or_one_that_refuses_is_named_without_keys() {
    let Some(storage) = Storage::start() else {
        return;
    };
    let service = service(storage.port);
    run(&service, &["init"]).expect(0);
    let text = std::fs::read_to_string(service.path("oa.toml")).unwrap();
    std::fs::write(
        service.path("oa.toml"),
        text.replace("s3://oa-backups/", "s3://absent/"),
    )
    .unwrap();
    let refused = run(&service, &["full"]);
    assert!(
        refused.code != Some(0) && refused.stderr.contains("NoSuchBucket"),
        "{refused:?}"
    );
    std::fs::write(service.path("oa.toml"), &text).unwrap();
    drop(storage);
    let unreachable = run(&service, &["full"]).expect(1);
    assert!(
        unreachable.stderr.contains("s3://oa-backups/one"),
        "{}",
        unreachable.stderr
    );
    for output in [refused.stderr, unreachable.stderr] {
        assert!(
            !output.contains("an-access-key")
                && !output.contains("a-secret-access-key")
                && !output.contains("X-Amz-Signature"),
            "{output}"
        );
    }
}

#[test]
fn a_bucket_that_lost_its_configuration_or_its_backups_is_not_begun_anew() {
    let Some(storage) = Storage::start() else {
        return;
    };
    let service = service(storage.port);
    run(&service, &["init"]).expect(0);
    run(&service, &["full"]).expect(0);
    let mut stream = TcpStream::connect(("127.0.0.1", storage.port)).unwrap();
    write!(
        stream,
        "DELETE /oa-backups/one/config HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: AWS4-HMAC-SHA256 Credential=an-access-key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    for (command, code) in [("init", 77), ("list", 78), ("full", 78)] {
        let output = run(&service, &[command]).expect(code);
        assert!(
            output.stderr.contains("no configuration") && output.stderr.contains("snapshots"),
            "{command}: {}",
            output.stderr
        );
    }
    // Another prefix, in which there should be some.
    service
        .db()
        .batch_execute("UPDATE oa.backups SET repository = 's3://oa-backups/two'")
        .unwrap();
    let text = std::fs::read_to_string(service.path("oa.toml")).unwrap();
    std::fs::write(service.path("oa.toml"), text.replace("/one\"", "/two\"")).unwrap();
    for (command, code) in [("init", 77), ("list", 78), ("full", 78)] {
        let output = run(&service, &[command]).expect(code);
        assert!(
            output.stderr.contains("1 backups were recorded there"),
            "{command}: {}",
            output.stderr
        );
    }
    run(&service, &["init", "--anew"]).expect(0);
    run(&service, &["full"]).expect(0);
}
