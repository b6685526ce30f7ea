//! In English.

use oa_core::model::event::{
    Age, Event, Fault, Finding, Kind, NamedBackup, RunFailed, Severity, Work,
};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::Status;

use super::{Draft, Wording, bytes, found_title, name, quoted};

/// The title with what it is in front.
pub(super) fn prefixed(event: &Event, title: &str) -> String {
    let mark = match (event.kind(), event.severity()) {
        (Kind::Recovery, _) => "[RECOVERED]",
        (Kind::Problem, Severity::Critical) => "[FAILURE]",
        _ => "[WARNING]",
    };
    format!("{mark} {title}")
}

pub(super) fn draft(event: &Event, w: &Wording) -> Draft {
    match event {
        Event::RunFailed(run) => run_failed(run, w),
        Event::RunRecovered {
            run,
            task,
            title,
            failing_since,
            failures,
            finished_at,
            fetched,
        } => {
            let mut lines = Vec::new();
            if let Some(since) = failing_since {
                lines.push(format!(
                    "It failed since {}, for {}; {failures} run(s) failed",
                    w.at(*since),
                    w.between(*since, *finished_at)
                ));
            }
            lines.push(format!(
                "This run succeeded at {} with {fetched} records",
                w.at(*finished_at)
            ));
            lines.push(format!("Run: {run}"));
            Draft {
                title: format!("{} works again", name(task, title)),
                lines,
            }
        }
        Event::TaskRetired {
            task,
            title,
            notified_at,
        } => Draft {
            title: format!("{} was retired, its incident is closed", name(task, title)),
            lines: vec![format!(
                "The task was retired with oa-crawl forget; people were last notified of the incident at {}",
                w.at(*notified_at)
            )],
        },
        Event::Machine {
            fault,
            host,
            task,
            reason,
            at,
        } => {
            let (what, effect, remedy) = fault_text(*fault);
            let about = task
                .as_ref()
                .map_or_else(String::new, |task| format!(": {task}"));
            Draft {
                title: format!("{host} {what}{about}"),
                lines: vec![
                    format!("Cause: {}", quoted(reason)),
                    format!("Found at: {}", w.at(*at)),
                    format!("Effect: {effect}"),
                    format!("What to do: {remedy}"),
                ],
            }
        }
        Event::MachineRecovered {
            fault,
            host,
            task,
            opened_at,
            at,
        } => {
            let about = task
                .as_ref()
                .map_or_else(String::new, |task| format!(" {task}"));
            Draft {
                title: format!("{host}{about} {}", fault_over(*fault)),
                lines: vec![format!(
                    "The incident began at {} and lasted {}, until {}",
                    w.at(*opened_at),
                    w.between(*opened_at, *at),
                    w.at(*at)
                )],
            }
        }
        Event::Found(finding) => found(finding, w),
        Event::FoundNoMore {
            of, opened_at, at, ..
        } => Draft {
            title: format!("{}: resolved", found_title(of, w)),
            lines: vec![format!(
                "It began at {} and lasted {}, until {}",
                w.at(*opened_at),
                w.between(*opened_at, *at),
                w.at(*at)
            )],
        },
        Event::ChannelGaveUp {
            channel,
            lost,
            error,
        } => Draft {
            title: format!("alert channel {channel} gave up {} alert(s)", lost.count),
            lines: vec![
                format!(
                    "Cause: the channel refused them for 24 hours ({})",
                    quoted(error)
                ),
                format!(
                    "Effect: whoever reads only that channel has not received:{}",
                    w.titles(lost)
                ),
                format!(
                    "What to do: fix the cause, then run oa-alert test {channel}; all texts: oa-alert list --all --format json"
                ),
            ],
        },
        Event::ChannelRefuses { channel, error } => Draft {
            title: format!("alert channel {channel} refuses messages"),
            lines: vec![
                format!("Cause: {}", quoted(error)),
                "Effect: whoever reads only that channel gets no alerts; they are retried, and given up after 24 hours".to_owned(),
                format!("What to do: fix the cause, then run oa-alert test {channel}"),
            ],
        },
        Event::ChannelRecovered {
            channel,
            lasted,
            lost,
        } => {
            let lasted = w.span(*lasted);
            let mut lines = vec![if lost.count == 0 {
                format!("{lasted} after it was first reported")
            } else {
                format!("{lasted} after alerts were first given up")
            }];
            if lost.count > 0 {
                lines.push(format!(
                    "This channel has not received ({}):{}",
                    lost.count,
                    w.titles(lost)
                ));
            }
            Draft {
                title: format!("alert channel {channel} works again"),
                lines,
            }
        }
        Event::MessageRefused {
            channel,
            alert,
            of,
            error,
            ..
        } => Draft {
            title: format!("alert channel {channel} refused one alert because of its content"),
            lines: vec![
                format!("Alert: {}", w.text(of).title),
                format!("Cause: {}", quoted(error)),
                "Effect: this channel has not received that alert".to_owned(),
                format!(
                    "What to do: read it on the page, or with oa-alert list --all --format json (id {alert})"
                ),
            ],
        },
        Event::Message { title, .. } => Draft {
            title: title.clone(),
            lines: Vec::new(),
        },
    }
}

fn run_failed(run: &RunFailed, w: &Wording) -> Draft {
    let what = match run.status {
        Status::Partial => "data incomplete",
        Status::Timeout => "timed out",
        Status::Abandoned => "was interrupted",
        _ => "failed",
    };
    let (cause, remedy) = match run.status {
        Status::Abandoned => (
            "the process is gone and left no result",
            "usually a reboot, too little memory, or somebody ended it: check this machine's log and memory; the task runs again when it is due",
        ),
        _ => explain(run.work, run.error.kind),
    };
    let mut lines = vec![format!("Cause: {cause} ({})", quoted(&run.error.message))];
    if run.attempts > 0 {
        let took = w.between(run.started_at, run.finished_at);
        lines.push(format!("Tried: {} time(s) within {took}", run.attempts));
    }
    lines.push(format!(
        "Since: {} (failure number {} in a row)",
        w.at(run.failing_since.unwrap_or(run.started_at)),
        run.failures
    ));
    lines.push(match run.last_success_at {
        Some(at) => format!(
            "Last success: {} ({} ago)",
            w.at(at),
            w.between(at, run.finished_at)
        ),
        None => "Last success: none on record".to_owned(),
    });
    let tables = &run.tables;
    let day = run
        .day
        .as_ref()
        .map_or_else(String::new, |day| format!(" of {day}"));
    match (run.status, tables.is_empty()) {
        (_, true) => {}
        (Status::Partial, false) => {
            let due = run
                .expected
                .map_or_else(|| "?".to_owned(), |n| n.to_string());
            lines.push(format!(
                "Effect: {tables} got {} of {due} records{day}; what came is stored",
                run.collected
            ));
        }
        (_, false) => lines.push(format!("Effect: no new data{day} in {tables}")),
    }
    let remedy = remedy.replace("{run}", &run.run.to_string());
    lines.push(format!("What to do: {remedy}"));
    lines.push(format!("Run: {}", run.run));
    Draft {
        title: format!("{} {what}", name(&run.task, &run.title)),
        lines,
    }
}

/// Cause and remedy.
fn explain(work: Work, kind: ErrorKind) -> (&'static str, &'static str) {
    match (work, kind) {
        (Work::Program, ErrorKind::Internal) => (
            "the program ended with an error",
            "see its output with oa-report logs --run {run}, then run the line that starts it again",
        ),
        (Work::Program, ErrorKind::Timeout) => (
            "the program took longer than allowed and was ended",
            "see where it hangs; if it needs longer, raise --timeout",
        ),
        (Work::Program, ErrorKind::Empty | ErrorKind::Partial) => (
            "the program brought fewer records than due",
            "check the day's data at their source, or correct --min-records",
        ),
        (Work::Program, ErrorKind::Shape) => (
            "the program's result file is missing or unreadable",
            "check that it writes the file that --result-file names",
        ),
        (Work::Backup, ErrorKind::Invalid) => (
            "a backup, its verification or a restore drill found something wrong",
            "fix the cause; oa-backup status and oa-backup verify show what is in the repository and what is wrong with it",
        ),
        (Work::Tool, ErrorKind::Invalid) => (
            "the two sides differ, or rows were quarantined",
            "look at the run's report, and at the rows in oa.rejects",
        ),
        (_, kind) => explain_site(kind),
    }
}

fn explain_site(kind: ErrorKind) -> (&'static str, &'static str) {
    match kind {
        ErrorKind::Network => (
            "the connection broke or the data came incomplete",
            "check this machine's network; if other sources work, wait for the next run",
        ),
        ErrorKind::Dns => (
            "the site's name could not be resolved",
            "check DNS and network, or whether the address has changed",
        ),
        ErrorKind::Tls => (
            "the encrypted connection failed",
            "check the site's certificate and this machine's clock",
        ),
        ErrorKind::Timeout => (
            "the site took longer than allowed",
            "the next run tries again; if it goes on, raise this source's timeout",
        ),
        ErrorKind::Http5xx => (
            "the site itself failed",
            "wait for the site; the next run tries again",
        ),
        ErrorKind::Http429 => (
            "the site asks for fewer requests",
            "collect less often, or later",
        ),
        ErrorKind::Http4xx => (
            "the site refused the request",
            "check whether address or parameters have changed",
        ),
        ErrorKind::Auth => (
            "the login or token has expired",
            "log in again, put the new token into .env and run the task once",
        ),
        ErrorKind::Blocked => (
            "a page for people came instead of data (captcha, maintenance)",
            "open the site in a browser; collect less often",
        ),
        ErrorKind::Shape => (
            "the data have another shape than before",
            "compare the raw archive with the source file and correct it",
        ),
        ErrorKind::Empty => (
            "nothing came where something was due",
            "check on the site whether there are data for that day",
        ),
        ErrorKind::Invalid => (
            "the data break the source's rules",
            "look at the rejected records in oa.rejects",
        ),
        ErrorKind::Partial => (
            "fewer records came than the site announced",
            "the next run tries again; or run the task by hand",
        ),
        ErrorKind::Db => (
            "the database refused the rows",
            "do what the error says; what came is in the raw archive",
        ),
        ErrorKind::Internal => (
            "a problem of this program or machine",
            "look at this machine's logs, disk and memory",
        ),
    }
}

/// What is wrong, what it means for the data, and what to do.
fn fault_text(fault: Fault) -> (&'static str, &'static str, &'static str) {
    match fault {
        Fault::DatabaseUnreachable => (
            "cannot reach the database",
            "collection goes on, results wait on this machine and are stored in order once the database is back",
            "check that PostgreSQL runs and that address and password are right",
        ),
        Fault::SchemaUnfit => (
            "does not fit the database's schema",
            "no task runs",
            "run oa-migrate init or install the newer programs, as the cause says",
        ),
        Fault::SpoolFull => (
            "has a full spool, new results cannot be stored",
            "what is collected now is kept in the raw archive only",
            "bring the database back (the spool then drains by itself), or raise max_size in [spool]",
        ),
        Fault::SpoolBroken => (
            "cannot use its spool",
            "results go to the database directly for now; should it go down too, there is no place for them",
            "free space on that disk, or move a damaged file aside",
        ),
        Fault::SpoolStuck => (
            "has results in its spool that the database refuses",
            "this task's results wait on this machine, nothing is lost, and later ones queue up behind them",
            "fix the table as the cause says (for example oa-migrate init, oa-migrate dedupe), then run oa-crawl drain",
        ),
    }
}

fn fault_over(fault: Fault) -> &'static str {
    match fault {
        Fault::DatabaseUnreachable => {
            "reaches the database again; what waited is being stored, in order"
        }
        Fault::SchemaUnfit => "fits the database's schema again; collection goes on",
        Fault::SpoolFull => "has an empty spool again",
        Fault::SpoolBroken => "can use its spool again",
        Fault::SpoolStuck => "has stored the results that were refused",
    }
}

fn found(finding: &Finding, w: &Wording) -> Draft {
    match finding {
        Finding::RunMissed {
            task,
            title,
            due_at,
            late,
            last_started_at,
            last_success_at,
            never,
        } => {
            let at = |at: &Option<_>| at.map_or_else(|| "none on record".to_owned(), |at| w.at(at));
            let what = if *never {
                "has never run"
            } else {
                "did not run when it was due"
            };
            Draft {
                title: format!("{} {what}", name(task, title)),
                lines: vec![
                    format!(
                        "It was due at {}, {} ago, and nothing was started",
                        w.at(*due_at),
                        w.span(*late)
                    ),
                    format!(
                        "Last start: {}; last success: {}",
                        at(last_started_at),
                        at(last_success_at)
                    ),
                    "Effect: no new data since then, and no failure either".to_owned(),
                    format!(
                        "What to do: check that cron runs, that the crontab has oa-crawl run --due, and that the machine was on; if it is not needed any more: oa-crawl disable {task} (for a source that was removed or renamed: oa-crawl forget {task})"
                    ),
                ],
            }
        }
        Finding::PartialStreak {
            task,
            title,
            times,
            error,
            last_success_at,
        } => Draft {
            title: format!(
                "{} brought incomplete data {times} times in a row",
                name(task, title)
            ),
            lines: vec![
                format!("The last one: {}", quoted(error)),
                format!(
                    "Last complete run: {}",
                    last_success_at.map_or_else(|| "none on record".to_owned(), |at| w.at(at))
                ),
                "Effect: what came is stored, the rest is missing ever since".to_owned(),
                format!(
                    "What to do: see with oa-crawl run {task} --dry-run what the site gives now; when it has changed, correct the source file and make up with oa-crawl replay {task} --date DAY"
                ),
            ],
        },
        Finding::RunTooLong {
            task,
            title,
            started_at,
            lasts,
            host,
        } => Draft {
            title: format!("{} runs for too long", name(task, title)),
            lines: vec![
                format!(
                    "It began at {}, {} ago, on {host}",
                    w.at(*started_at),
                    w.span(*lasts)
                ),
                "Effect: no new data until it ends, and the task's next starts are skipped"
                    .to_owned(),
                "What to do: look at the process there; when it hangs, end it: the run becomes abandoned and the task is due again".to_owned(),
            ],
        },
        Finding::Connections { used, limit } => Draft {
            title: "the database's connections are nearly used up".to_owned(),
            lines: vec![
                format!("{used} of {limit} are in use"),
                "Effect: with none left no program reaches the database, and results wait in the spool".to_owned(),
                "What to do: find in pg_stat_activity who holds them, or raise max_connections"
                    .to_owned(),
            ],
        },
        Finding::WalHeld { slot, bytes: held } => Draft {
            title: format!("replication slot {slot} holds {} of WAL", bytes(*held)),
            lines: vec![
                "Effect: nobody reads it, and WAL grows until the database's disk is full".to_owned(),
                format!(
                    "What to do: start its reader again, or, when nobody needs it: SELECT pg_drop_replication_slot('{slot}')"
                ),
            ],
        },
        Finding::ClockOff { host, seconds } => Draft {
            title: format!("the clock of {host} is {seconds} seconds off the database's"),
            lines: vec![
                "Effect: signatures of robots go wrong; while the database cannot be reached, what is due is decided by this clock".to_owned(),
                "What to do: check the time service of both machines (timedatectl, chronyc tracking)".to_owned(),
            ],
        },
        Finding::DiskFilling {
            host,
            path,
            size,
            free,
            full_at,
            ..
        } => {
            let percent = (*free as f64 / (*size).max(1) as f64 * 100.0).round();
            let mut lines = vec![format!(
                "The disk of {path} has {} left ({percent} %) of {}",
                bytes(*free),
                bytes(*size)
            )];
            lines.extend(full_at.map(|at| {
                format!("At the present rate it will be full about {}", w.day(at))
            }));
            lines.push(
                "Effect: once it is full, raw archive, spool and backups cannot be written"
                    .to_owned(),
            );
            lines.push("What to do: make room; the raw archive can be kept for a shorter time (raw_keep), then oa-crawl prune".to_owned());
            Draft {
                title: format!("{host} runs out of disk space"),
                lines,
            }
        }
        Finding::DataStale {
            task,
            title,
            last,
            days,
        } => Draft {
            title: format!("{} brings nothing new", name(task, title)),
            lines: vec![
                format!(
                    "Its runs succeed, but nothing was new or changed on the {days} trading days since {last}; as a rule there is something each trading day"
                ),
                format!("Effect: the data are those of {last}"),
                format!(
                    "What to do: see whether the site has something newer; when it has, see with oa-crawl run {task} --dry-run what is collected and correct the source file; when it has not: oa-alert ack {task}"
                ),
            ],
        },
        Finding::DataFalling {
            task,
            title,
            came,
            usual,
        } => {
            let each: Vec<String> = came
                .iter()
                .map(|(day, n)| format!("{} {n}", day.format("%m-%d")))
                .collect();
            Draft {
                title: format!("{} brings far fewer records", name(task, title)),
                lines: vec![
                    format!(
                        "Records of the last {} trading days: {}; usual before were {usual} a day",
                        came.len(),
                        each.join(", ")
                    ),
                    "Effect: the runs succeed, but a part of the data may be collected no more"
                        .to_owned(),
                    format!(
                        "What to do: count on the site how many there are; when its pages or filters have changed, correct the source file and make up with oa-crawl replay {task} --date DAY"
                    ),
                ],
            }
        }
        Finding::SpoolWaiting {
            host,
            entries,
            bytes: size,
            oldest,
            waits,
        } => Draft {
            title: format!("results have waited in the spool of {host} for {}", w.span(*waits)),
            lines: vec![
                format!(
                    "{entries} entries ({}) wait on this machine, the oldest since {}",
                    bytes(*size),
                    w.at(*oldest)
                ),
                "Effect: nothing is lost, but the database does not have them, nor do reports and those who read it".to_owned(),
                "What to do: when PostgreSQL is there, run oa-crawl drain and do what it says"
                    .to_owned(),
            ],
        },
        Finding::CookieExpiring {
            host,
            provider,
            ends_at,
            left,
        } => {
            let at = w.at(*ends_at);
            let (what, when) = match left {
                Some(left) => (
                    "expire soon",
                    format!(
                        "They expire at {at}, in {} (imported on {host})",
                        w.span(*left)
                    ),
                ),
                None => (
                    "have expired",
                    format!("They expired at {at} (imported on {host})"),
                ),
            };
            Draft {
                title: format!("the login cookies of {provider} {what}"),
                lines: vec![
                    when,
                    format!("Effect: without them nothing is collected from {provider}"),
                    format!(
                        "What to do: log in with your own browser, export the cookies, and run oa-crawl cookies import {provider} FILE"
                    ),
                ],
            }
        }
        Finding::CertificateExpiring {
            server,
            ends_at,
            left,
        } => {
            let at = w.at(*ends_at);
            let (what, when) = match left {
                Some(left) => (
                    "expires soon",
                    format!("It expires at {at}, in {}", w.span(*left)),
                ),
                None => ("has expired", format!("It expired at {at}")),
            };
            Draft {
                title: format!("the certificate of the database {server} {what}"),
                lines: vec![
                    when,
                    "Effect: after that, programs that verify it (sslmode=verify-ca, verify-full) cannot connect".to_owned(),
                    "What to do: replace the server's certificate (ssl_cert_file) and run SELECT pg_reload_conf(); with a managed database, renew it in its console"
                        .to_owned(),
                ],
            }
        }
        backup => found_backup(backup, w),
    }
}

fn found_backup(finding: &Finding, w: &Wording) -> Draft {
    let dated = |age: &Age| format!("{} ({} ago)", w.at(age.at), w.span(age.age));
    let (title, lines) = match finding {
        Finding::BackupAbsent {
            repository,
            configured_at,
        } => (
            "there is no backup",
            vec![
                match configured_at {
                    Some(at) => format!(
                        "The repository {repository} is configured since {} and holds no backup",
                        w.at(*at)
                    ),
                    None => {
                        format!("the repository {repository} is empty, run oa-backup full")
                    }
                },
                LATE_EFFECT.to_owned(),
                LATE_REMEDY.to_owned(),
            ],
        ),
        Finding::BackupLate {
            recoverable, full, ..
        } => {
            let mut lines = Vec::new();
            if let Some(age) = recoverable {
                lines.push(format!(
                    "The newest recoverable time is {}; the objective is {} (rpo)",
                    dated(age),
                    w.span(age.limit)
                ));
            }
            if let Some(age) = full {
                lines.push(format!(
                    "The last full backup ended at {}; one is due every {} (full_every)",
                    dated(age),
                    w.span(age.limit)
                ));
            }
            lines.push(LATE_EFFECT.to_owned());
            lines.push(LATE_REMEDY.to_owned());
            ("the backup is late", lines)
        }
        Finding::BackupMissing {
            repository,
            gone,
            gone_count,
            stranded,
            stranded_count,
        } => {
            let mut lines = Vec::new();
            if *gone_count > 0 {
                let lacks = match gone_count {
                    1 => "one backup that was".to_owned(),
                    many => format!("{many} backups that were"),
                };
                lines.push(format!(
                    "The repository {repository} lacks {lacks} recorded: {}",
                    named(gone, *gone_count, w)
                ));
            }
            if *stranded_count > 0 {
                lines.push(format!(
                    "{stranded_count} incremental backup(s) cannot be restored, because the full backup is gone: {}",
                    named(stranded, *stranded_count, w)
                ));
            }
            lines
                .push("Effect: the points in time that they covered cannot be restored".to_owned());
            lines.push("What to do: see whether the repository's disk is mounted, was swapped or put back to an older state; bring the files back from another copy. If they are lost for good: oa-backup full, then oa-backup prune --missing".to_owned());
            ("backups have disappeared from the repository", lines)
        }
        Finding::BackupDamaged { id, error, .. } => (
            "the verification of a backup failed",
            vec![
                format!("Backup {id}: {}", quoted(error)),
                "Effect: it may not be restorable, nor what continues it".to_owned(),
                "What to do: make a new full backup now with oa-backup full, then oa-backup verify --read-data; check the repository's disk"
                    .to_owned(),
            ],
        ),
        Finding::BackupUnverified { last, never, .. } => (
            "the backups have not been read back for a long time",
            vec![
                if *never {
                    format!(
                        "The first backup ended at {} and none was ever read back; that is due every {} (verify_limit)",
                        dated(last),
                        w.span(last.limit)
                    )
                } else {
                    format!(
                        "They were last read back at {}; that is due every {} (verify_limit)",
                        dated(last),
                        w.span(last.limit)
                    )
                },
                "Effect: what has silently rotted on the disk is noticed only by a restore".to_owned(),
                "What to do: run oa-backup verify --read-data, and put it into the crontab".to_owned(),
            ],
        ),
        Finding::DrillFailed {
            at, backup, error, ..
        } => (
            "the restore drill failed",
            vec![
                format!("{}, with backup {backup}: {}", w.at(*at), quoted(error)),
                "Effect: a real restore would probably fail as well".to_owned(),
                "What to do: fix the cause and run oa-restore drill again; make another backup with oa-backup full".to_owned(),
            ],
        ),
        Finding::DrillSlow {
            at,
            took,
            objective,
            ..
        } => (
            "the restore drill was slower than the objective",
            vec![
                format!(
                    "The drill of {} took {}; the objective is {} (rto)",
                    w.at(*at),
                    w.span(*took),
                    w.span(*objective)
                ),
                "Effect: should the database be lost, the service is down for longer than promised".to_owned(),
                "What to do: put the repository on a faster disk, make full backups more often, or raise rto in [backup]".to_owned(),
            ],
        ),
        Finding::DrillOverdue { last, never, .. } => (
            "a restore drill is overdue",
            vec![
                if *never {
                    format!(
                        "The first backup ended at {} and none was ever restored with success; a drill is due every {} (drill_every)",
                        dated(last),
                        w.span(last.limit)
                    )
                } else {
                    format!(
                        "The last one with success was at {}; one is due every {} (drill_every)",
                        dated(last),
                        w.span(last.limit)
                    )
                },
                "Effect: a backup that was never restored is none".to_owned(),
                "What to do: run oa-restore drill --yes, and put it into the crontab".to_owned(),
            ],
        ),
        Finding::RepositoryFilling {
            repository,
            size,
            free,
            needed,
            full_at,
        } => {
            let mut lines = vec![format!(
                "The repository {repository} has {}; its disk has {} left",
                bytes(*size),
                bytes(*free)
            )];
            lines.extend(needed.map(|needed| {
                format!(
                    "The last full backup added {}: the next one will probably not fit",
                    bytes(needed)
                )
            }));
            lines.extend(full_at.map(|at| {
                format!("At the present rate it will be full about {}", w.day(at))
            }));
            lines.push("Effect: once it is full, there are no new backups".to_owned());
            lines.push("What to do: make room, or keep fewer (keep_daily, keep_weekly) and run oa-backup prune".to_owned());
            ("the backup repository runs out of space", lines)
        }
        other => (other.rule(), Vec::new()),
    };
    Draft {
        title: title.to_owned(),
        lines,
    }
}

const LATE_EFFECT: &str =
    "Effect: should the database be lost now, what came later could not be restored";
const LATE_REMEDY: &str = "What to do: check that the crontab runs oa-backup, and why the last run failed (oa-backup status)";

fn named(backups: &[NamedBackup], count: usize, w: &Wording) -> String {
    let named: Vec<String> = backups
        .iter()
        .map(|b| {
            format!(
                "{} ({} {}, {})",
                b.short_id,
                b.level,
                b.kind,
                w.at(b.restorable_to)
            )
        })
        .collect();
    match count.saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} +{more}", named.join(", ")),
    }
}
