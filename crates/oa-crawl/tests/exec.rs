//! Any program under the wrapper: tried again, ended in time, counted, recorded, and never twice at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::time::Duration;

use common::processes::{exec, has_ended, pid_in};
use common::{Done, Service};
use oa_testkit::wait_until;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_program_is_tried_until_it_succeeds_and_its_records_are_counted() {
    let service = Service::start();
    let script = "echo try $OA_ATTEMPT of $OA_TASK >> log; echo working; [ $OA_ATTEMPT -ge 3 ] || { echo 'no luck' >&2; exit 1; }
                  printf '{\"a\":1}\\n{\"a\":2}\\n[1]\\nnot json\\n{\"a\":3}\\n'";
    let done = exec(&service, &["--title", "作业", "--min-records", "3"], script);
    assert_eq!(done.code, 0, "{done:?}");
    let row = done.row();
    assert_eq!(
        (&row["status"], &row["attempts"], &row["fetched"]),
        (&"success".into(), &3.into(), &3.into())
    );
    assert!(
        done.stderr.contains("working") && done.stderr.contains("not json"),
        "its output is passed on: {done:?}"
    );
    assert_eq!(
        fs::read_to_string(service.dir.path().join("log")).unwrap(),
        "try 1 of job\ntry 2 of job\ntry 3 of job\n"
    );
    assert_eq!(
        service.text("SELECT string_agg(attempt || ' ' || outcome || ' ' || coalesce(error_message, ''), '; ' ORDER BY attempt) FROM oa.attempts"),
        "1 failed sh ended with exit status: 1: no luck; 2 failed sh ended with exit status: 1: no luck; 3 success "
    );
    assert_eq!(
        service.text("SELECT task_name || ' ' || status || ' ' || records_count || ' ' || retry_count FROM crawler_task_logs"),
        "job success 3 2"
    );
    assert_eq!(service.count("oa.alerts"), 0);
}

#[test]
fn a_final_failure_alerts_and_the_next_success_resolves_it() {
    let service = Service::start();
    let done = exec(
        &service,
        &["--retries", "1"],
        "echo halfway; echo 'cannot log in: https://x.cn/?access_token=s3cr3t' >&2; exit 3",
    );
    assert_eq!(done.code, 1, "{done:?}");
    let row = done.row();
    assert_eq!(
        (&row["status"], &row["attempts"]),
        (&"failed".into(), &2.into())
    );
    let output = service.text("SELECT details ->> 'output' FROM oa.runs");
    assert!(output.contains("halfway\ncannot log in"), "{output}");
    let everything =
        service.text("SELECT string_agg(r::text || a::text, '') FROM oa.runs r, oa.alerts a");
    assert!(!everything.contains("s3cr3t"), "{everything}");
    let alert = service.alerts("kind = 'problem'");
    assert!(
        alert.contains("job 运行失败") && alert.contains("程序以错误结束"),
        "{alert}"
    );
    assert_eq!(exec(&service, &[], "true").code, 0);
    assert_eq!(service.count("oa.alerts WHERE kind = 'recovery'"), 1);
}

#[test]
fn secrets_that_are_known_here_are_neither_stored_nor_passed_on() {
    let service = Service::start();
    service.configure("retries = 1\n[[alert.channels]]\nname = \"ops\"\nkind = \"dingtalk\"\nurl = \"env:HOOK\"\nsecret = \"file:sign\"\n");
    oa_testkit::write_private(&service.dir.path().join("sign"), "SEC-signing\n");
    oa_testkit::write_private(
        &service.dir.path().join(".env"),
        "HOOK=http://127.0.0.1:9/hook-value\nZHIHUI_AUTH_TOKEN=zhihui-value\nMY_API_KEY=own-value\n",
    );
    // The last line is longer than what an error shows of it, and the cut goes through a secret.
    let script = "echo http://127.0.0.1:9/hook-value SEC-signing zhihui-value own-value from-crontab $DATABASE_URL
                  printf '%0295d' 0 >&2; printf SEC- >&2; echo signing >&2; exit 1";
    let done: Done = service
        .command(&["exec", "--task", "job", "--", "sh", "-c", script])
        .env("SITE_PASSWORD", "from-crontab")
        .output()
        .unwrap()
        .into();
    assert_eq!(done.code, 1, "{done:?}");
    let stored = service.text(
        "SELECT string_agg(r::text || t::text || a::text || l::text, '')
         FROM oa.runs r, oa.attempts t, oa.alerts a, oa.tasks l",
    );
    for text in [&stored, &done.stdout, &done.stderr] {
        for secret in [
            "hook-value",
            "SEC-",
            "zhihui-value",
            "own-value",
            "from-crontab",
            "oa-test-password",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(done.stderr.contains("[redacted] [redacted]"), "{done:?}");
    assert!(stored.contains("[redacted] [redacted]"), "{stored}");
}

#[test]
fn a_program_that_something_else_kills_is_tried_again() {
    let service = Service::start();
    let done = exec(&service, &[], "[ $OA_ATTEMPT -ge 2 ] || kill -9 $$");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        service
            .text("SELECT error_message FROM oa.attempts WHERE attempt = 1")
            .contains("signal: 9")
    );
}

#[test]
fn what_a_second_attempt_would_only_repeat_is_not_retried() {
    let service = Service::start();
    for (script, said) in [
        ("exit 2", "exit status: 2"),
        ("exit 77", "exit status: 77"),
        ("exit 78", "exit status: 78"),
        ("no-such-command", "not found"),
    ] {
        let done = exec(&service, &[], script);
        assert_eq!(
            (done.code, &done.row()["attempts"]),
            (1, &1.into()),
            "{done:?}"
        );
        assert!(
            done.row()["error"].as_str().unwrap().contains(said),
            "{done:?}"
        );
    }
    let bare = service.dir.path().join("bare");
    fs::write(&bare, "true\n").unwrap();
    fs::set_permissions(&bare, fs::Permissions::from_mode(0o755)).unwrap();
    for (program, remedy) in [
        ("/no/such/program", "check its path"),
        ("/etc/passwd", "chmod +x"),
        (bare.to_str().unwrap(), "names no interpreter"),
    ] {
        let done = service.crawl(&["exec", "--task", "job", "--format", "json", "--", program]);
        assert_eq!(
            (done.code, &done.row()["attempts"]),
            (1, &1.into()),
            "{done:?}"
        );
        let error = done.row()["error"].as_str().unwrap().to_owned();
        assert!(
            error.contains("could not start") && error.contains(remedy),
            "{error}"
        );
    }
    assert_eq!(service.crawl(&["exec", "--task", "job"]).code, 2);
    assert_eq!(exec(&service, &["--timeout", "0"], "true").code, 2);
    assert_eq!(
        service
            .crawl(&["exec", "--task", "Böse; name", "--", "true"])
            .code,
        2
    );
}

#[test]
fn too_long_means_the_end_of_the_program_and_all_it_started() {
    let service = Service::start();
    let script =
        "sleep 600 & echo $! > grandchild; trap '' TERM; echo waiting; while :; do sleep 1; done";
    let done = exec(&service, &["--retries", "0", "--timeout", "300ms"], script);
    assert_eq!(done.code, 1, "{done:?}");
    assert_eq!(done.row()["status"], "timeout");
    assert_eq!(done.row()["error_kind"], "timeout");
    assert!(
        done.row()["error"]
            .as_str()
            .unwrap()
            .contains("time limit: waiting"),
        "{done:?}"
    );
    let grandchild = pid_in(&service.dir.path().join("grandchild")).unwrap();
    wait_until("the grandchild's end", Duration::from_secs(5), || {
        has_ended(grandchild)
    });
    prints_without_end(&service);
}

/// Whatever it prints without end, and however it clings to that, it ends long before its time is up.
fn prints_without_end(service: &Service) {
    service.configure("max_body = \"1MiB\"\n");
    for (script, stream) in [
        ("yes", "stdout"),
        ("yes >&2", "stderr"),
        ("yes | tr -d '\\n'", "stdout"),
        (
            "trap '' TERM PIPE; while :; do echo on and on; done 2>/dev/null",
            "stdout",
        ),
        (
            "setsid sh -c 'echo $$ > pid; exec yes' & until [ -s pid ]; do sleep 0.01; done; wait",
            "stdout",
        ),
        // It is over by itself before anybody can end it.
        ("yes | head -c 1100000", "stdout"),
    ] {
        let done = exec(service, &["--timeout", "10m"], script);
        let row = done.row();
        assert_eq!(
            (done.code, &row["attempts"], &row["error_kind"]),
            (1, &1.into(), &"internal".into()),
            "{script}: {row}"
        );
        let error = row["error"].as_str().unwrap();
        assert!(
            error.contains(&format!(
                "printed more than 1048576 bytes on {stream} and was ended"
            )),
            "{script}: {error}"
        );
        if let Some(pid) = pid_in(&service.dir.path().join("pid")) {
            assert!(has_ended(pid), "{script}");
        }
    }
    // What closes its output and works on is none of them.
    let row = exec(service, &[], "echo '{}'; exec >&- 2>&-; sleep 0.3").row();
    assert_eq!(
        (&row["status"], &row["fetched"]),
        (&"success".into(), &1.into()),
        "{row}"
    );
}

#[test]
fn too_few_records_are_a_failure_wherever_they_are_counted() {
    let service = Service::start();
    let few = exec(
        &service,
        &["--retries", "1", "--min-records", "2"],
        "echo '{}'",
    );
    assert_eq!(
        (few.code, &few.row()["status"], &few.row()["fetched"]),
        (1, &"partial".into(), &1.into())
    );
    let none = exec(
        &service,
        &["--retries", "0", "--min-records", "1"],
        "echo done",
    );
    assert_eq!(
        (&none.row()["status"], &none.row()["error_kind"]),
        (&"failed".into(), &"empty".into())
    );

    let file = [
        "--retries",
        "0",
        "--min-records",
        "2",
        "--result-file",
        "out.json",
    ];
    let done = exec(&service, &file, "echo '[1, 2, 3]' > out.json");
    assert_eq!(
        (done.code, &done.row()["fetched"]),
        (0, &3.into()),
        "{done:?}"
    );
    for (script, said) in [
        ("true", "the file is an older one"),
        ("rm -f out.json", "has not written out.json"),
        (
            "echo '{\"records\": 1}' > out.json",
            "brought 1 record(s), at least 2 were due",
        ),
        ("echo 75 > out.json", "expected an object or an array"),
        ("rm out.json; mkfifo out.json", "not a regular file"),
        (
            "rm out.json; echo '[1, 2' > out.json",
            "could not count the records in out.json",
        ),
    ] {
        let done = exec(&service, &file, script);
        assert_eq!(done.code, 1, "{script}: {done:?}");
        assert!(
            done.row()["error"].as_str().unwrap().contains(said),
            "{script}: {done:?}"
        );
    }
}

#[test]
fn while_postgresql_is_unreachable_the_outcome_waits_in_the_spool() {
    let mut service = Service::start();
    service.server.stop();
    assert_eq!(exec(&service, &[], "echo '{}'").code, 75);
    assert_eq!(exec(&service, &["--retries", "0"], "exit 1").code, 1);
    service.server.start_again();
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(
        service.text("SELECT string_agg(status, ' ' ORDER BY id) FROM oa.runs WHERE task = 'job'"),
        "success failed"
    );
}

#[test]
fn a_stop_signal_ends_the_program_and_leaves_a_final_row() {
    let service = Service::start();
    let mut child = service
        .command(&[
            "exec",
            "--task",
            "job",
            "--",
            "sh",
            "-c",
            "echo $$ > pid; sleep 600",
        ])
        .current_dir(service.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = service.dir.path().join("pid");
    wait_until("the program", Duration::from_secs(20), || {
        pid_in(&file).is_some()
    });
    let me = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(me, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(has_ended(pid_in(&file).unwrap()));
    assert!(
        service
            .text("SELECT error_message FROM oa.runs")
            .contains("asked to stop")
    );
}

#[test]
fn a_killed_wrapper_takes_the_program_and_all_it_started_with_it() {
    let service = Service::start();
    let mut child = service
        .command(&[
            "exec",
            "--task",
            "job",
            "--",
            "sh",
            "-c",
            "echo halfway; echo token=abc123secret99 >&2; sleep 600 & echo $! > grandchild; echo $$ > pid; wait",
        ])
        .current_dir(service.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = service.dir.path().join("pid");
    wait_until("the program", Duration::from_secs(20), || {
        pid_in(&file).is_some()
    });
    // What it prints can be read while it runs, by nobody else, and without secrets.
    let live = service.dir.path().join("state/output/job.txt");
    let seen = || fs::read_to_string(&live).unwrap_or_default();
    wait_until("its output", Duration::from_secs(20), || {
        seen().contains("halfway\n") && seen().contains("token=[redacted]\n")
    });
    assert_eq!(fs::metadata(&live).unwrap().mode() & 0o777, 0o600);
    child.kill().unwrap();
    child.wait().unwrap();
    for name in ["pid", "grandchild"] {
        let pid = pid_in(&service.dir.path().join(name)).unwrap();
        wait_until("its end", Duration::from_secs(5), || has_ended(pid));
    }
    assert_eq!(exec(&service, &[], "true").row()["status"], "success");
    assert_eq!(service.count("oa.runs WHERE status = 'abandoned'"), 1);
    assert_eq!(service.count("oa.alerts WHERE rule = 'run_abandoned'"), 1);
    // And it is not lost.
    let kept = service.text("SELECT details ->> 'output' FROM oa.runs WHERE status = 'abandoned'");
    assert!(
        kept.contains("halfway\n") && !kept.contains("abc123"),
        "{kept}"
    );
    assert!(!seen().contains("halfway"), "the next run took the place");
}

#[test]
fn a_second_start_is_skipped_but_what_a_program_leaves_behind_blocks_nothing() {
    let service = Service::start();
    let mut first = service
        .command(&["exec", "--task", "job", "--", "sleep", "600"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the first run", Duration::from_secs(20), || {
        service.count("oa.runs WHERE status = 'running'") == 1
    });
    let second = exec(&service, &[], "true");
    assert_eq!(
        (second.code, &second.row()["status"]),
        (0, &"skipped".into()),
        "{second:?}"
    );
    first.kill().unwrap();
    first.wait().unwrap();

    // A helper in a session of its own, such as browsers and agents leave.
    let script = "setsid sh -c 'echo $$ > helper; exec sleep 600' >/dev/null 2>&1 & until [ -s helper ]; do sleep 0.01; done";
    assert_eq!(exec(&service, &[], script).code, 0);
    let helper = pid_in(&service.dir.path().join("helper")).unwrap();
    assert!(has_ended(helper), "it ends with its program");
    assert_eq!(
        service.count("oa.runs WHERE status = 'success' AND details ->> 'left_behind' LIKE '%sleep (process %'"),
        1
    );
    let next = exec(&service, &[], "true");
    assert_eq!(next.row()["status"], "success", "{next:?}");
}

#[test]
fn records_are_counted_by_a_query_where_the_configuration_has_one() {
    let mut service = Service::start();
    service
        .db()
        .batch_execute("CREATE TABLE public.kept (at timestamptz DEFAULT clock_timestamp()); INSERT INTO public.kept SELECT '2025-01-01' FROM generate_series(1, 9)")
        .unwrap();
    let configure = |service: &Service, sql: &str| {
        service.configure(&format!("retries = 0\n[exec.job]\nrecords = \"{sql}\"\n"));
    };
    let keep = format!(
        "psql -qX '{}' -c 'INSERT INTO public.kept VALUES (DEFAULT), (DEFAULT)'",
        service.url
    );
    configure(&service, "SELECT count(*) FROM public.kept WHERE at >= $1");
    let row = exec(&service, &["--min-records", "2"], &keep).row();
    assert_eq!(
        (&row["status"], &row["fetched"]),
        (&"success".into(), &2.into()),
        "{row}"
    );
    let row = exec(&service, &["--min-records", "2"], "true").row();
    assert_eq!(
        (&row["status"], &row["error_kind"]),
        (&"failed".into(), &"empty".into()),
        "{row}"
    );
    for (sql, said) in [
        (
            "SELECT count(*) FROM public.gone",
            "\"public.gone\" does not exist",
        ),
        ("SELECT 'nine'", "not a bigint"),
        (
            "DELETE FROM public.kept RETURNING 1::bigint",
            "read-only transaction",
        ),
        ("SELECT $1::int + $2::int", "2 parameters"),
    ] {
        configure(&service, sql);
        let row = exec(&service, &[], "true").row();
        assert_eq!(
            (&row["status"], &row["error_kind"]),
            (&"failed".into(), &"db".into()),
            "{row}"
        );
        let error = row["error"].as_str().unwrap();
        assert!(
            error.contains(said) && error.contains("[exec.job]"),
            "{error}"
        );
    }
    assert_eq!(service.count("public.kept"), 11);
    service.server.stop();
    let row = exec(&service, &[], "true").row();
    assert!(
        row["error"]
            .as_str()
            .unwrap()
            .contains("could not be counted"),
        "{row}"
    );
}

#[test]
fn the_records_query_of_the_docs_works_on_every_type_of_time() {
    let service = Service::start();
    service
        .db()
        .batch_execute(
            "CREATE TABLE public.zoned (at timestamptz DEFAULT clock_timestamp());
             CREATE TABLE public.dates (at date DEFAULT (now() AT TIME ZONE 'Asia/Shanghai')::date);",
        )
        .unwrap();
    for (table, column, keep) in [
        (
            "fundamental_reports",
            "created_at",
            "INSERT INTO fundamental_reports (comm_code, created_at) VALUES ('old', '2025-01-01'), ('new', clock_timestamp() AT TIME ZONE 'Asia/Shanghai')",
        ),
        (
            "zoned",
            "at",
            "INSERT INTO zoned VALUES ('2025-01-01'), (DEFAULT)",
        ),
        (
            "dates",
            "at",
            "INSERT INTO dates VALUES ('2025-01-01'), (DEFAULT)",
        ),
    ] {
        let sql = format!("SELECT count(*) FROM {table} WHERE {column} >= $1");
        service.configure(&format!("retries = 0\n[exec.job]\nrecords = \"{sql}\"\n"));
        let check = service.crawl(&["check", "--format", "json"]);
        let query = check
            .rows()
            .into_iter()
            .find(|r| r["check"] == "job")
            .unwrap();
        assert_eq!(query["state"], "ok", "{query}");
        let program = format!(
            "psql -qX -v ON_ERROR_STOP=1 '{}' -c \"{keep}\"",
            service.url
        );
        let row = exec(&service, &["--min-records", "1"], &program).row();
        assert_eq!(
            (&row["status"], &row["fetched"]),
            (&"success".into(), &1.into()),
            "{row}"
        );
    }
}

#[test]
fn a_query_that_cannot_count_is_found_by_check_and_runs_no_program_twice() {
    let service = Service::start();
    for sql in [
        "SELECT count(*) FROM public.gone",
        "SELECT count(*) FROM fundamental_reports WHERE comm_code >= $1",
        "SELECT 'nine'",
    ] {
        service.configure(&format!("retries = 3\n[exec.job]\nrecords = \"{sql}\"\n"));
        let check = service.crawl(&["check", "--format", "json"]);
        assert_eq!(check.code, 78, "{check:?}");
        let query = check
            .rows()
            .into_iter()
            .find(|r| r["check"] == "job")
            .unwrap();
        assert_eq!(query["state"], "error", "{query}");
        let log = service.dir.path().join("log");
        let _ = fs::remove_file(&log);
        let row = exec(&service, &[], "echo once >> log").row();
        assert_eq!(
            (&row["status"], &row["error_kind"]),
            (&"failed".into(), &"db".into()),
            "{row}"
        );
        assert_eq!(fs::read_to_string(log).unwrap(), "once\n");
    }
}

#[test]
fn a_program_gets_the_secrets_that_are_given_to_it_and_no_others() {
    let service = Service::start();
    let hook = "[[alert.channels]]\nname = \"ops\"\nkind = \"dingtalk\"\nurl = \"env:HOOK\"\n";
    let env = "ZHIHUI_AUTH_TOKEN=sim-token\nSITE_LOGIN=from-dotenv\nOTHER=not-given\n";
    let print = "env > seen";
    let run = |more: &str| {
        service.configure(&format!("retries = 0\n{more}{hook}"));
        fs::write(service.dir.path().join(".env"), env).unwrap();
        let done: Done = service
            .command(&[
                "exec", "--task", "job", "--format", "json", "--", "sh", "-c", print,
            ])
            .current_dir(service.dir.path())
            .env("HOOK", "http://127.0.0.1:9/hook")
            .env("ZHIHUI_AUTH_TOKEN", "exported")
            .env("PLAIN", "inherited")
            .output()
            .unwrap()
            .into();
        let seen = fs::read_to_string(service.dir.path().join("seen")).unwrap_or_default();
        (done, seen)
    };
    let has = |seen: &str, name: &str| seen.lines().any(|l| l.starts_with(&format!("{name}=")));
    let (done, seen) = run("");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        has(&seen, "PLAIN") && has(&seen, "PATH") && has(&seen, "OA_TASK"),
        "{seen}"
    );
    // What a program in Python prints comes at once.
    assert!(seen.contains("PYTHONUNBUFFERED=1\n"), "{seen}");
    for secret in [
        "HOOK",
        "ZHIHUI_AUTH_TOKEN",
        "DATABASE_URL",
        "SITE_LOGIN",
        "OTHER",
    ] {
        assert!(!has(&seen, secret), "{secret} in {seen}");
    }
    let (_, seen) = run("[exec.job]\nenv = [\"SITE_LOGIN\", \"DATABASE_URL\"]\n");
    assert!(
        seen.contains("SITE_LOGIN=from-dotenv\n") && has(&seen, "DATABASE_URL"),
        "{seen}"
    );
    assert!(!has(&seen, "OTHER") && !has(&seen, "HOOK"), "{seen}");
    let (done, _) = run("[exec.job]\nenv = [\"ABSENT\"]\n");
    assert_eq!(
        (done.code, done.row()["status"].as_str().unwrap()),
        (78, "failed"),
        "{done:?}"
    );
    assert!(
        done.row()["error"].as_str().unwrap().contains("ABSENT"),
        "{done:?}"
    );
    let (done, _) = run("[exec.job]\nenv = [\"A=b\"]\n");
    assert_eq!(done.code, 78, "{done:?}");
}

#[test]
fn the_output_of_each_attempt_stays_readable_and_without_secrets() {
    let service = Service::start();
    service.configure("retries = 1\n");
    fs::write(
        service.dir.path().join(".env"),
        "SITE_TOKEN=p@ss/word+1=x\n",
    )
    .unwrap();
    let script = r#"i=0; while [ $i -lt 3000 ]; do echo "line $i of try $OA_ATTEMPT, and some more of it"; i=$((i+1)); done
        printf '\033[31mTraceback\033[0m\a\nKeyError: \033]0;x\007close\n' >&2
        printf 'plain p@ss/word+1=x url p%%40ss%%2Fword%%2B1%%3Dx lower p%%40ss%%2fword%%2b1%%3dx b64 ' >&2
        printf 'p@ss/word+1=x' | base64 >&2; printf 'user:p@ss/word+1=x' | base64 >&2; printf '{"k":"p@ss\\/word+1=x"}\n' >&2
        echo 'the end' >&2; exit 1"#;
    let done = exec(&service, &[], script);
    assert_eq!(done.code, 1, "{}", done.stdout);
    let last = service.text("SELECT details ->> 'output' FROM oa.runs");
    let first = service.text("SELECT details #>> '{earlier_output,0,output}' FROM oa.runs");
    for (text, attempt) in [(&first, 1), (&last, 2)] {
        assert!(
            text.len() <= 64 << 10 && text.len() > 60 << 10,
            "{}",
            text.len()
        );
        assert!(text.contains(&format!("line 2999 of try {attempt}")));
        assert!(
            text.contains("Traceback\nKeyError: close\n"),
            "{}",
            &text[text.len() - 500..]
        );
        assert!(text.ends_with("the end\n"));
        let end = &text[text.len() - 400..];
        for secret in [
            "p@ss",
            "p%40ss",
            "word",
            "cEBzcy93b3Jk",
            "BAc3Mvd29yZC",
            "AcHNzL3dvcm",
        ] {
            assert!(!end.contains(secret), "{secret}: {end}");
        }
    }
}
