//! Certificates, proxies, and files that are not there yet.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::site::{Answer, Site};
use common::{Done, Service};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

const RECORDS: &str = r#"{"list": [{"code": "RB"}]}"#;

fn source(base: &str, more: &str) -> String {
    format!(
        r#"
name = "quotes"
title = "报价"
provider = "own"
schedule = "0 9 * * *"
{more}
answer = {{ records = "/list" }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "code", type = "text", required = true }},
]

[fetch]
kind = "http"
base = "{base}"
path = "/{{date}}"
"#
    )
}

/// `oa-crawl try` in a folder of its own, whose configuration has these lines in `[crawl]`.
fn attempt(base: &str, crawl: &str, variables: &[(&str, &str)]) -> Done {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("quotes.toml"), source(base, "")).unwrap();
    let config = format!("state_dir = \"state\"\n[database]\nurl = \"env:X\"\n[crawl]\n{crawl}\n");
    fs::write(dir.path().join("oa.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
    command
        .args(["--config", "oa.toml", "try", "quotes.toml"])
        .current_dir(dir.path())
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .env_remove("SSL_CERT_DIR")
        .env_remove("SSL_CERT_FILE")
        .envs(variables.iter().copied());
    command.output().unwrap().into()
}

fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(folder);
    assert!(command.output().unwrap().status.success(), "{arguments}");
}

/// A site with a certificate of its own authority, `ca.pem` in `folder`.
fn https(folder: &Path) -> String {
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        folder,
        &format!("req -x509 {new_key} -keyout ca.key -out ca.pem -days 2 -subj /CN=own"),
    );
    openssl(
        folder,
        &format!("req {new_key} -keyout site.key -out site.csr -subj /CN=localhost"),
    );
    fs::write(folder.join("ext"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(
        folder,
        "x509 -req -in site.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out site.pem -days 2 -extfile ext",
    );
    let certificate = CertificateDer::from_pem_file(folder.join("site.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("site.key")).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            let mut asked = [0; 4096];
            if tls.read(&mut asked).is_ok() {
                let _ = write!(
                    tls,
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{RECORDS}",
                    RECORDS.len()
                );
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    url
}

#[test]
fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let url = https(folder.path());
    let authority = folder.path().join("ca.pem");
    let authority = authority.to_str().unwrap();

    let unknown = attempt(&url, "", &[]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(
        unknown
            .stdout
            .contains("name its certificate by ca_file in [crawl]"),
        "{unknown:?}"
    );
    let named = attempt(&url, &format!("ca_file = \"{authority}\""), &[]);
    assert_eq!(named.code, 0, "{named:?}");
    let variable = attempt(&url, "", &[("SSL_CERT_FILE", authority)]);
    assert_eq!(variable.code, 0, "{variable:?}");
    let wrong = attempt(&url, "", &[("SSL_CERT_FILE", "/none.pem")]);
    assert_eq!(wrong.code, 78, "{wrong:?}");
    assert!(wrong.stderr.contains("SSL_CERT_FILE names"), "{wrong:?}");

    fs::write(folder.path().join("empty.pem"), "").unwrap();
    for file in ["none.pem", "empty.pem"] {
        let path = folder.path().join(file);
        let done = attempt(&url, &format!("ca_file = \"{}\"", path.display()), &[]);
        assert_eq!(done.code, 78, "{done:?}");
        assert!(done.stderr.contains("could not read ca_file"), "{done:?}");
    }
}

/// A SOCKS5 proxy that connects every request to `site`.
fn socks(site: &str) -> (String, Arc<AtomicUsize>) {
    let site = site.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("socks5h://{}", listener.local_addr().unwrap());
    let used = Arc::new(AtomicUsize::new(0));
    let count = used.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let mut greeting = [0; 2];
            stream.read_exact(&mut greeting).unwrap();
            stream
                .read_exact(&mut vec![0; usize::from(greeting[1])])
                .unwrap();
            stream.write_all(&[5, 0]).unwrap();
            let mut request = [0; 5];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request[3], 3, "the proxy resolves the name");
            stream
                .read_exact(&mut vec![0; usize::from(request[4]) + 2])
                .unwrap();
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            let there = TcpStream::connect(&site).unwrap();
            let (mut back, mut from) = (stream.try_clone().unwrap(), there.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut back));
            let mut there = there;
            thread::spawn(move || std::io::copy(&mut stream, &mut there));
        }
    });
    (url, used)
}

#[test]
fn a_socks_proxy_is_asked_and_an_unusable_one_is_refused() {
    let site = Site::start(|_| Answer::json(RECORDS));
    let (proxy, used) = socks(&site.url);
    // A name that only the proxy knows.
    let done = attempt("http://site.invalid", "", &[("all_proxy", &proxy)]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(used.load(Ordering::SeqCst) > 0);
    for variable in ["all_proxy", "HTTPS_PROXY", "http_proxy"] {
        for wrong in ["socks7://user:secret-word@127.0.0.1:1", "http://"] {
            let done = attempt(&site.url, "", &[(variable, wrong)]);
            assert_eq!(done.code, 78, "{done:?}");
            assert!(
                done.stderr
                    .contains(&format!("the proxy that {variable} names")),
                "{done:?}"
            );
            assert!(!format!("{done:?}").contains("secret-word"), "{done:?}");
        }
    }
}

#[test]
fn a_site_with_letters_of_any_language_in_its_name_is_asked_by_its_name_in_dns() {
    let site = Site::start(|_| Answer::json(RECORDS));
    let (proxy, _) = socks(&site.url);
    for base in ["http://行情.invalid", "http://xn--feuu39f.invalid"] {
        let done = attempt(base, "", &[("all_proxy", &proxy)]);
        assert_eq!(done.code, 0, "{done:?}");
        let asked = site.asked().pop().unwrap();
        assert!(
            asked.head.contains("host: xn--feuu39f.invalid"),
            "{asked:?}"
        );
    }
}

/// A source of a browser, enabled, in a folder of its own with this `ca_file`. Runs a command there.
fn browser_with(ca_file: &Path, base: &str, home: &Path, arguments: &[&str]) -> Done {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("own")).unwrap();
    let text = source(base, "")
        .replace("kind = \"http\"", "kind = \"browser\"")
        .replace(
            "{ records = \"/list\" }",
            "{ end = \"one answer\", table = { rows = \"tr\", columns = [\"code\"] } }",
        );
    let text = format!("{text}\n[browser]\nsteps = [{{ take_html = true }}]\n");
    fs::write(dir.path().join("own/quotes.toml"), text).unwrap();
    let config = format!(
        "state_dir = \"state\"\n[database]\nurl = \"env:X\"\n[crawl]\nsources = \"own\"\nenable = [\"quotes\"]\nca_file = \"{}\"\n",
        ca_file.display()
    );
    fs::write(dir.path().join("oa.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
    command
        .args(["--config", "oa.toml"])
        .args(arguments)
        .current_dir(dir.path())
        .env("HOME", home)
        .env("X", "postgresql://127.0.0.1:1/oa");
    command.output().unwrap().into()
}

#[test]
fn that_a_browser_does_not_read_ca_file_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let url = https(folder.path());
    let (authority, home) = (folder.path().join("ca.pem"), folder.path());
    let check = || {
        let checked = browser_with(&authority, &url, home, &["check", "--format", "json"]);
        let rows = checked.rows().into_iter();
        rows.filter(|r| {
            r["detail"]
                .as_str()
                .unwrap()
                .contains("does not read ca_file")
        })
        .collect::<Vec<_>>()
    };
    if !crate::browser::has_chromium() {
        println!("no Chromium: that it does not read ca_file is not tried");
        return;
    }
    let said = check();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0]["state"], "warning");
    let command = said[0]["command"].as_str().unwrap();
    assert!(
        command.contains("certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n oa -i "),
        "{command}"
    );
    let tried = browser_with(&authority, &url, home, &["try", "own/quotes.toml"]);
    assert_eq!(tried.code, 1, "{tried:?}");
    assert!(
        tried
            .stdout
            .contains("Chromium does not read ca_file: if the authority is to be trusted"),
        "{tried:?}"
    );
    // Where authorities have been added, nobody is bothered.
    fs::create_dir_all(home.join(".pki/nssdb")).unwrap();
    fs::write(home.join(".pki/nssdb/cert9.db"), "").unwrap();
    assert_eq!(check().len(), 0);
}

#[test]
fn a_file_that_is_not_there_yet_is_asked_for_again_and_is_no_failure() {
    let service = Service::start();
    let today = common::noon().date_naive();
    let asked = AtomicUsize::new(0);
    let site = Site::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::status(404),
        1 => Answer::json(""),
        2 => Answer::json("<html><title>您的访问出错了</title></html>"),
        3 => Answer::json(r#"{"day": "2025-11-28", "list": [{"code": "OLD"}]}"#),
        4 => Answer::json(format!(r#"{{"day": "{today}", "list": []}}"#)),
        _ => Answer::json(format!(
            r#"{{"day": "{today}", "list": [{{"code": "RB"}}]}}"#
        )),
    });
    let text = |more: &str| {
        source(&site.url, more)
            .replace("records = \"/list\"", "records = \"/list\", day = \"/day\"")
    };
    let run = |more: &str| {
        service.add("quotes", &text(more));
        let folder = service.dir.path().join("own");
        service.configure_at_noon(&format!(
            "retries = 0\nsources = \"{}\"\n",
            folder.display()
        ));
        service.crawl(&["run", "quotes", "--format", "json"]).row()
    };
    let row = run("not_yet = { until = \"23:00\", every = \"1s\" }");
    assert_eq!(
        (&row["status"], &row["attempts"], &row["inserted"]),
        (&json!("success"), &json!(6), &json!(1)),
        "{row}"
    );
    assert_eq!(service.count("oa.attempts"), 6);
    assert_eq!(service.count("oa.alerts"), 0);
    assert_eq!(
        service.text("SELECT string_agg(code, ' ') FROM commodities"),
        "RB"
    );

    // Late in the day, for another day, and for another failure, it is as always.
    let late = Site::start(|_| Answer::status(404));
    service.add(
        "quotes",
        &source(&late.url, "not_yet = { until = \"01:00\", every = \"1s\" }"),
    );
    let folder = service.dir.path().join("own");
    service.configure_at_noon(&format!(
        "retries = 0\nsources = \"{}\"\n",
        folder.display()
    ));
    let row = service.crawl(&["run", "quotes", "--format", "json"]).row();
    assert_eq!(
        (&row["status"], &row["attempts"]),
        (&json!("failed"), &json!(1)),
        "{row}"
    );
    service.add(
        "quotes",
        &source(&late.url, "not_yet = { until = \"23:00\", every = \"1s\" }"),
    );
    service.configure_at_noon(&format!(
        "retries = 0\nsources = \"{}\"\n",
        folder.display()
    ));
    let row = service
        .crawl(&["run", "quotes", "--date", "2025-12-01", "--format", "json"])
        .row();
    assert_eq!(
        (&row["status"], &row["attempts"]),
        (&json!("failed"), &json!(1)),
        "{row}"
    );
}
