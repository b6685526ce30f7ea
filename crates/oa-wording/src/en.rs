//! The English catalogue.

mod found;

use oa_core::model::event::{Event, Fault, GivenUp, Kind, RunFailed, Severity, Work};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::Status;

use super::{Draft, Wording, found_title, name, quoted, with_names};

/// The title with what it is in front.
pub(super) fn prefixed(event: &Event, title: &str) -> String {
    let mark = match (event.kind(), event.severity()) {
        (Kind::Recovery, _) => "[RECOVERED]",
        (Kind::Message, Severity::Info) => "[NOTICE]",
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
            ..
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
        Event::Found(finding) => found::draft(finding, w),
        Event::FoundNoMore {
            of,
            opened_at,
            at,
            ended,
            ..
        } => {
            let left: u64 = ended.iter().map(|e| e.left_count).sum();
            let how = match left {
                0 => "resolved".to_owned(),
                n => format!("it runs again, {n} still missing"),
            };
            let mut lines = vec![format!(
                "It began at {} and lasted {}, until {}",
                w.at(*opened_at),
                w.between(*opened_at, *at),
                w.at(*at)
            )];
            lines.extend(ended.iter().flat_map(found::ended));
            Draft {
                title: format!("{}: {how}", found_title(of, w)),
                lines,
            }
        }
        Event::ChannelGaveUp {
            channel,
            lost,
            error,
            why,
        } => Draft {
            title: format!("alert channel {channel} gave up {} alert(s)", lost.count),
            lines: vec![
                match why {
                    GivenUp::Refused => format!(
                        "Cause: the channel refused them for 24 hours ({})",
                        quoted(error)
                    ),
                    GivenUp::Unanswered => format!(
                        "Cause: they were sent three times without an answer ({})",
                        quoted(error)
                    ),
                    GivenUp::Content => format!(
                        "Cause: the channel refuses what is in them, also without their text ({})",
                        quoted(error)
                    ),
                },
                format!(
                    "Effect: whoever reads only that channel {}:{}",
                    if *why == GivenUp::Unanswered {
                        "may not have received"
                    } else {
                        "has not received"
                    },
                    w.titles(lost)
                ),
                format!(
                    "What to do: fix the cause, then run oa-alert test {channel}; all texts: oa-alert list --all and oa-alert show ID"
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
            unsure,
        } => {
            let lasted = w.span(*lasted);
            let mut lines = vec![if lost.count == 0 {
                format!("{lasted} after it was first reported")
            } else {
                format!("{lasted} after alerts were first given up")
            }];
            if lost.count > 0 {
                lines.push(format!(
                    "This channel {} ({}):{}",
                    if *unsure {
                        "may not have received"
                    } else {
                        "has not received"
                    },
                    lost.count,
                    w.titles(lost)
                ));
            }
            Draft {
                title: format!("alert channel {channel} works again"),
                lines,
            }
        }
        Event::ChannelRemoved {
            channel,
            lost,
            unsure,
        } => {
            let mut lines = vec![
                "No machine uses this channel: it was removed from the configuration at least an hour ago, or the machines that have it have not run for three days".to_owned(),
            ];
            if lost.count > 0 {
                lines.push(format!(
                    "This channel {} ({}):{}",
                    if *unsure {
                        "may not have received"
                    } else {
                        "has not received"
                    },
                    lost.count,
                    w.titles(lost)
                ));
            }
            Draft {
                title: format!("no machine uses alert channel {channel} any more, its incident is closed"),
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
                    "What to do: read it on the page, or with oa-alert show {alert}"
                ),
            ],
        },
        Event::BackupMade {
            repository,
            backup,
            kind,
            restorable_to,
            size,
            added,
            took,
            ..
        } => Draft {
            title: "full backup made".to_owned(),
            lines: vec![
                format!("Backup: {backup} ({kind}) in {repository}"),
                format!("Restores to: {}", w.at(*restorable_to)),
                format!("Size: {}, {} added to the repository", super::bytes(*size), super::bytes(*added)),
                format!("It took: {}", w.span(*took)),
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
    let (cause, remedy) = why(run.work, run.status, run.error.kind);
    let mut lines = vec![format!("Cause: {cause} ({})", quoted(&run.error.message))];
    if run.attempts > 0 {
        let took = w.between(run.started_at, run.finished_at);
        lines.push(format!("Tried: {} time(s) within {took}", run.attempts));
    }
    let since = w.at(run.failing_since.unwrap_or(run.started_at));
    lines.push(if run.history_unknown {
        format!("Since: {since}")
    } else {
        format!("Since: {since} (failure number {} in a row)", run.failures)
    });
    lines.push(match run.last_success_at {
        _ if run.history_unknown => "Last success: not known while PostgreSQL is down".to_owned(),
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
        (_, true) if run.work == Work::Backup => lines.push(
            "Effect: this backup, verification or drill is not done; oa-backup status says up to when you can restore".to_owned(),
        ),
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
    let remedy = with_names(remedy, &run.task, run.run);
    lines.push(format!("What to do: {remedy}"));
    if !run.host.is_empty() {
        lines.push(format!("Machine: {}", run.host));
    }
    lines.push(format!("Run: {}", run.run));
    Draft {
        title: format!("{} {what}", name(&run.task, &run.title)),
        lines,
    }
}

/// Why a run is no success.
pub(super) fn cause(run: &RunFailed) -> &'static str {
    why(run.work, run.status, run.error.kind).0
}

/// Why a run is no success, and what to do; `{task}` and `{run}` stand for their names.
pub(super) fn why(work: Work, status: Status, kind: ErrorKind) -> (&'static str, &'static str) {
    match status {
        Status::Abandoned => (
            "the process is gone and left no result",
            "usually a reboot, too little memory, or somebody ended it: check that machine's log and memory (journalctl -k, free -h); the task runs again when it is due",
        ),
        _ => explain(work, kind),
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
        (Work::Backup, ErrorKind::Internal) => (
            "the backup or restore did not succeed",
            "act on the reason in brackets; oa-backup status shows how things stand",
        ),
        (Work::Backup, ErrorKind::Invalid) => (
            "a backup, its verification or a restore drill found something wrong",
            "fix the cause; oa-backup status and oa-backup verify show what is in the repository and what is wrong with it",
        ),
        (Work::Tool, ErrorKind::Invalid) => (
            "the two sides differ, or rows were quarantined",
            "look at the run's report, and at the rows in oa.rejects",
        ),
        (Work::Source, kind) => explain_site(kind),
        (_, kind) => (explain_site(kind).0, mend(kind)),
    }
}

/// What to do about what is no source.
fn mend(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Network | ErrorKind::Dns | ErrorKind::Tls | ErrorKind::Timeout => {
            "check the network between that machine and the other side (address, DNS, certificate), then run the line that starts it again"
        }
        ErrorKind::Db => "do what the error says, then run the line that starts it again",
        _ => {
            "act on the reason in brackets, then run the line that starts it again; details: oa-report logs --run {run}"
        }
    }
}

fn explain_site(kind: ErrorKind) -> (&'static str, &'static str) {
    match kind {
        ErrorKind::Network => (
            "the connection broke or the data came incomplete",
            "check that machine's network; if other sources work, it is the site: the next run tries again; at once: oa-crawl run {task}",
        ),
        ErrorKind::Dns => (
            "the site's name could not be resolved",
            "check that machine's DNS and network, and whether the site's address has changed; then: oa-crawl run {task}",
        ),
        ErrorKind::Tls => (
            "the encrypted connection failed",
            "check the site's certificate and that machine's clock; then: oa-crawl run {task}",
        ),
        ErrorKind::Timeout => (
            "the site took longer than allowed",
            "the next run tries again; if it goes on, raise timeout in the source file; at once: oa-crawl run {task}",
        ),
        ErrorKind::Http5xx => (
            "the site itself failed",
            "wait for the site; the next run tries again; at once: oa-crawl run {task}",
        ),
        ErrorKind::Http429 => (
            "the site asks for fewer requests",
            "collect less often (schedule in the source file); later: oa-crawl run {task}",
        ),
        ErrorKind::Http4xx => (
            "the site refused the request",
            "check whether address or parameters have changed; oa-crawl run {task} --dry-run shows what the site gives now",
        ),
        ErrorKind::Auth => (
            "the login or token has expired",
            "log in again, put the new token into .env (cookies: oa-crawl cookies import), then: oa-crawl run {task}",
        ),
        ErrorKind::Blocked => (
            "a page for people came instead of data (captcha, maintenance)",
            "open the site in a browser; collect less often; then: oa-crawl run {task}",
        ),
        ErrorKind::Shape => (
            "the data have another shape than before",
            "see what the site gives now with oa-crawl run {task} --dry-run, correct the source file, then: oa-crawl run {task}",
        ),
        ErrorKind::Empty => (
            "nothing came where something was due",
            "check on the site whether there are data for that day; at once: oa-crawl run {task}",
        ),
        ErrorKind::Stale => (
            "the content is that of an earlier day: the site has nothing new yet",
            "the next run tries again; where days may be the same, say may_repeat = true in the source file",
        ),
        ErrorKind::Invalid => (
            "the data break the source's rules",
            "the rejected records and why: the run's page, or oa.rejects (run_id = '{run}')",
        ),
        ErrorKind::Partial => (
            "fewer records came than the site announced",
            "the next run tries again; at once: oa-crawl run {task}",
        ),
        ErrorKind::Db => (
            "the database refused the rows",
            "do what the error says; what came is in the raw archive; then: oa-crawl run {task}",
        ),
        ErrorKind::Internal => (
            "a problem of this program or machine",
            "look at that machine's logs, disk and memory; details: oa-report logs --run {run}",
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
        Fault::NoStore => (
            "can write neither to the database nor to its own disk",
            "nothing was collected meanwhile, or there was no place for it; afterwards oa-report days lists the holes and oa-crawl backfill fills them",
            "bring one of them back: start PostgreSQL, or free space on the disk of state_dir",
        ),
        Fault::SpoolStuck => (
            "has results in its spool that the database refuses",
            "this task's results wait on this machine, nothing is lost, and later ones queue up behind them",
            "fix the table as the cause says (for example oa-migrate init, oa-migrate dedupe), then run oa-crawl drain",
        ),
        Fault::CheckFailed => (
            "cannot finish its check for alerts",
            "PostgreSQL can be reached, but the check did not get through: runs that did not happen, data that stay away and backups that are late are found by nobody; where the cause names tasks, that holds for their runs only; failures of tasks are still reported",
            "act on the cause: a timeout (57014, 55P03): look at the load and the locks of the database; a missing privilege (42501): grant what the cause names; a full disk (53100): free space on the database's disk; then run oa-alert check",
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
        Fault::NoStore => "has a place for results again",
        Fault::SpoolStuck => "has stored the results that were refused",
        Fault::CheckFailed => "finishes its check for alerts again",
    }
}
