//! Databases of real frameworks: the application makes its own schema in PostgreSQL, takes the rows there, and goes on. The
//! frameworks come from PyPI; `scripts/setup --tests` installs them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use std::process::Command;

use support::Sandbox;

/// The Python that has the frameworks; `None`, with a word, where it is not installed.
fn python() -> Option<Command> {
    let program = oa_testkit::workspace_root().join("target/frameworks/bin/python");
    if !program.is_file() {
        oa_testkit::skip("the frameworks of Python", "scripts/setup --tests");
        return None;
    }
    let mut command = Command::new(program);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

fn script(name: &str) -> String {
    format!("{}/tests/frameworks/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (stdout, stderr) = (output.stdout, output.stderr);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).unwrap()
}

/// Runs the application on SQLite, moves the rows into its own tables, and back. `on` runs it on a database: a file or PostgreSQL.
fn moved(
    sandbox: &Sandbox,
    mapping: &str,
    more: &[&str],
    on: impl Fn(Option<&str>, &[&str]) -> String,
) {
    sandbox.run(&["init"]).expect(0);
    let before = on(Some("app.db"), &["schema", "fill", "show"]);
    assert!(before.lines().count() > 30, "{before}");
    on(None, &["schema"]);
    std::fs::write(sandbox.path("map.toml"), mapping).unwrap();
    let arguments = [
        &[
            "run",
            "app.db",
            "--timestamps-in",
            "UTC",
            "--mapping",
            "map.toml",
        ][..],
        more,
    ]
    .concat();
    let done = sandbox.run(&arguments).expect(0);
    assert!(!done.stderr.contains("exists already"), "{}", done.stderr);
    assert_eq!(on(None, &["show", "use"]), before);
    sandbox.run(&["to-sqlite", "back.db"]).expect(0);
    assert_eq!(on(Some("back.db"), &["show"]), before);
}

#[test]
fn an_application_on_sqlalchemy_and_alembic_goes_on_with_its_rows() {
    if python().is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    let url = sandbox
        .pg
        .url()
        .replacen("postgresql://", "postgresql+psycopg2://", 1);
    let url = format!(
        "{url}{}options=-csearch_path%3Dpublic",
        if url.contains('?') { '&' } else { '?' }
    );
    moved(
        &sandbox,
        "[tables.item.columns.span]\nfrom = \"since_epoch\"\n",
        &["--exclude", "alembic_version"],
        |file, steps| {
            let file = file.map(|f| format!("sqlite:///{}", sandbox.path(f).display()));
            let mut command = python().unwrap();
            command
                .arg(script("shop.py"))
                .arg(sandbox.path(""))
                .arg(file.as_ref().unwrap_or(&url));
            output(command.args(steps))
        },
    );
    assert_eq!(
        sandbox.number("SELECT count(*) FROM public.alembic_version"),
        1
    );
}

#[test]
fn a_site_on_django_goes_on_with_its_rows() {
    if python().is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    let url = sandbox.pg.url();
    let (user, rest) = url
        .trim_start_matches("postgresql://")
        .split_once('@')
        .unwrap();
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (server, _) = rest.split_once('?').unwrap_or((rest, ""));
    moved(
        &sandbox,
        "[tables.library_author.columns.spent]\nfrom = \"duration_us\"\n",
        &["--replace"],
        |file, steps| {
            let file = file.map(|f| sandbox.path(f).display().to_string());
            let mut command = python().unwrap();
            command
                .arg(script("site_on_django.py"))
                .env("DATABASE", file.as_deref().unwrap_or(server))
                .env("DATABASE_USER", user)
                .env("DATABASE_PASSWORD", password);
            output(command.args(steps))
        },
    );
}
