//! What `oa-alert check` finds.

use oa_core::model::event::{Age, Expected, Finding, Missed, MissedEnd, NamedBackup};

use super::super::{Draft, Wording, bytes, day_list, name, quoted, short};

pub(super) fn draft(finding: &Finding, w: &Wording) -> Draft {
    of_runs(finding, w)
        .or_else(|| of_data(finding, w))
        .or_else(|| of_machines(finding, w))
        .unwrap_or_else(|| of_backups(finding, w))
}

/// So many tasks are named.
const TASKS: usize = 12;

/// The first of some tasks, and how many more there are.
fn listed(tasks: &[String]) -> String {
    let first = tasks.iter().take(TASKS).map(|t| quoted(t));
    let first = first.collect::<Vec<_>>().join(", ");
    match tasks.len().saturating_sub(TASKS) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// When and how often something is missing; `None` for once of a day that the line before has named.
fn missed_line(missed: &Missed, w: &Wording) -> Option<String> {
    let last = missed
        .last_due_at
        .filter(|_| missed.times + missed.unfetchable > 1);
    let all = missed.days.len() as u64 + missed.earlier_days;
    let mut days = day_list(&missed.days);
    if missed.earlier_days > 0 {
        days.push_str(&format!(
            ", and {} day(s) before these",
            missed.earlier_days
        ));
    }
    let mut line = match last {
        Some(last) => format!(
            "Missed {} time(s), the last one due at {}; days: {days}",
            missed.times,
            w.at(last)
        ),
        None if all > 1 => format!("Missed on {all} days: {days}"),
        None => return None,
    };
    if missed.unfetchable > 0 {
        line.push_str(&format!(
            "; {} of them the site shows no more",
            missed.unfetchable
        ));
    }
    Some(line)
}

fn fill_line(task: &str, missed: &Missed) -> Option<String> {
    let (from, to) = missed.backfill?;
    Some(format!(
        "To fill it: oa-crawl backfill {task} --from {from} --to {to}"
    ))
}

/// What became of what was missed.
pub(super) fn ended(ended: &MissedEnd) -> Vec<String> {
    let who = name(&ended.task, &ended.title);
    let mut lines = Vec::new();
    if !ended.made_up.is_empty() {
        lines.push(format!("{who}, made up for: {}", day_list(&ended.made_up)));
    }
    if let (Some(first), Some(last)) = (ended.left.first(), ended.left.last()) {
        let days = day_list(&ended.left);
        lines.push(format!(
            "{who}, still missing {} time(s): {days}",
            ended.left_count
        ));
        if ended.backfills {
            lines.push(format!(
                "To fill it: oa-crawl backfill {} --from {first} --to {last}",
                ended.task
            ));
        }
    }
    lines
}

fn of_runs(finding: &Finding, w: &Wording) -> Option<Draft> {
    Some(match finding {
        Finding::RunMissed {
            task,
            title,
            due_at,
            late,
            last_started_at,
            last_success_at,
            never,
            missed,
            expected,
        } => {
            let at = |at: &Option<_>| at.map_or_else(|| "none on record".to_owned(), |at| w.at(at));
            let what = match (missed.runs_again, *never) {
                (true, _) => "has missing days",
                (_, true) => "has never run",
                _ => "did not run when it was due",
            };
            let when = match expected {
                Expected::Rhythm => format!(
                    "As it ran until now it was due at {}, {} ago, and nothing was started",
                    w.at(*due_at),
                    w.span(*late)
                ),
                _ if missed.runs_again => format!("The first one was due at {}", w.at(*due_at)),
                _ => format!(
                    "It was due at {}, {} ago, and nothing was started",
                    w.at(*due_at),
                    w.span(*late)
                ),
            };
            let mut lines = vec![when];
            lines.extend(missed_line(missed, w));
            lines.push(format!(
                "Last start: {}; last success: {}",
                at(last_started_at),
                at(last_success_at)
            ));
            lines.push(match missed.runs_again {
                true => "Effect: it runs again, but there are no data of these days".to_owned(),
                false => "Effect: no new data since then, and no failure either".to_owned(),
            });
            lines.extend(fill_line(task, missed));
            if !missed.runs_again {
                lines.push(match expected {
                    Expected::Source => format!(
                        "What to do: check that cron runs, that the crontab has oa-crawl run --due, and that the machine was on; if it is not needed any more: oa-crawl disable {task} (for a source that was removed or renamed: oa-crawl forget {task})"
                    ),
                    Expected::Configured => format!(
                        "What to do: check that cron runs, that the crontab still has the line that starts it, and that the machine was on; if it is not needed any more, take its schedule out of the configuration, then: oa-crawl forget {task}"
                    ),
                    Expected::Rhythm if task == "backup-stream" => {
                        "What to do: start it again: systemctl start oa-backup-stream, or oa-backup stream; its log says why it ended. If it is not needed any more: oa-crawl forget backup-stream".to_owned()
                    }
                    Expected::Rhythm => format!(
                        "What to do: check that cron runs, that the crontab still has the line that starts it, and that the machine was on; if it is not needed any more: oa-crawl forget {task}"
                    ),
                });
            }
            Draft {
                title: format!("{} {what}", name(task, title)),
                lines,
            }
        }
        Finding::CronStopped {
            since,
            until,
            tasks,
        } => {
            let count = tasks.len();
            let mut lines = vec![match until {
                Some(until) => format!(
                    "Nothing was started from {} to {} (cron stood still, or the machine was off)",
                    w.at(*since),
                    w.at(*until)
                ),
                None => format!(
                    "Nothing was started since {} (cron stands still, or the machine was off)",
                    w.at(*since)
                ),
            }];
            for of in tasks.iter().take(TASKS) {
                let what = missed_line(&of.missed, w);
                let what = what.unwrap_or_else(|| format!("due at {}", w.at(of.due_at)));
                let fill = fill_line(&of.task, &of.missed);
                let fill = fill.map_or_else(String::new, |fill| format!(". {fill}"));
                lines.push(format!("{}: {what}{fill}", name(&of.task, &of.title)));
            }
            if count > TASKS {
                lines.push(format!("And {} more tasks", count - TASKS));
            }
            lines.push("Effect: there are no data of these days, and no failure either".to_owned());
            if until.is_none() {
                lines.push(
                    "What to do: check that cron runs and that the crontab has oa-crawl run --due; what was missed is then made up for as catch_up says".to_owned(),
                );
            }
            Draft {
                title: match until {
                    Some(_) => format!("{count} tasks have missing days from when nothing was started"),
                    None => format!("nothing is started any more, {count} tasks did not run"),
                },
                lines,
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
                    "What to do: see with oa-crawl run {task} --dry-run what the site gives now; when it has changed, correct the source file and make up with oa-crawl replay {task} --date DAY --yes"
                ),
            ],
        },
        Finding::OpeningAtRisk {
            task,
            title,
            session,
            opens_at,
            failing_since,
        } => Draft {
            title: format!("the {session} session opens soon, and {} still fails", name(task, title)),
            lines: vec![
                format!("The session opens at {}", w.at(*opens_at)),
                format!("It fails since {}", w.at(*failing_since)),
                "Effect: there are no new data of this source when it opens".to_owned(),
                format!("What to do: mend it as its own alert says, then: oa-crawl run {task}"),
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
        _ => return None,
    })
}

fn of_data(finding: &Finding, _: &Wording) -> Option<Draft> {
    Some(match finding {
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
                        "What to do: count on the site how many there are; when its pages or filters have changed, correct the source file and make up with oa-crawl replay {task} --date DAY --yes"
                    ),
                ],
            }
        }
        _ => return None,
    })
}

fn of_machines(finding: &Finding, w: &Wording) -> Option<Draft> {
    Some(match finding {
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
        Finding::NetworkDown { host, since, tasks } => Draft {
            title: format!("the network of {host} is down, {} tasks collect nothing", tasks.len()),
            lines: vec![
                format!(
                    "Since {} three sites or more could not be reached, and none was",
                    w.at(*since)
                ),
                format!("Affected: {}", listed(tasks)),
                "Effect: there are no new data of these tasks; their own alerts are part of this one".to_owned(),
                format!(
                    "What to do: check network, DNS and proxy on {host} (ping, nslookup, curl -v of any site); afterwards each task collects with its next run"
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
        Finding::ListenerDown {
            channel,
            last_at,
            error,
        } => {
            let last = last_at.map_or_else(|| "never".to_owned(), |at| w.at(at));
            let mut lines = vec![format!("Last connected: {last}")];
            if !error.is_empty() {
                lines.push(format!("Cause: {error}"));
            }
            lines.extend([
                "Effect: alerts arrive as ever, but what is pressed on a card is not done, and cards turn green up to a minute later".to_owned(),
                "What to do: see that oa-alert listen runs (systemctl status oa-alert-listen, or the @reboot line of the crontab); where the application is the cause, oa-alert check-config first".to_owned(),
            ]);
            let title = format!("nobody takes what is pressed in channel {channel}");
            Draft { title, lines }
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
        _ => return None,
    })
}

fn of_backups(finding: &Finding, w: &Wording) -> Draft {
    let (title, lines) = of_repository(finding, w)
        .or_else(|| of_drills(finding, w))
        .unwrap_or((finding.rule(), Vec::new()));
    Draft {
        title: title.to_owned(),
        lines,
    }
}

fn of_repository(finding: &Finding, w: &Wording) -> Option<(&'static str, Vec<String>)> {
    Some(match finding {
        Finding::BackupAbsent {
            repository,
            configured_at,
        } => (
            "there is no backup",
            vec![
                match configured_at {
                    Some(at) => format!(
                        "The repository {repository} is configured since {} and holds no backup of this service",
                        w.at(*at)
                    ),
                    None => {
                        format!("the repository {repository} holds no backup of this service")
                    }
                },
                LATE_EFFECT.to_owned(),
                ABSENT_REMEDY.to_owned(),
            ],
        ),
        Finding::BackupLate {
            recoverable, full, ..
        } => {
            let mut lines = Vec::new();
            if let Some(age) = recoverable {
                lines.push(format!(
                    "The newest recoverable time is {}; the objective is {} (rpo)",
                    dated(age, w),
                    w.span(age.limit)
                ));
            }
            if let Some(age) = full {
                lines.push(format!(
                    "The last full backup ended at {}; one is due every {} (full_every)",
                    dated(age, w),
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
                format!("Backup {}: {}", short(id), quoted(error)),
                "Effect: it may not be restorable, nor what continues it".to_owned(),
                "What to do: make a new full backup now with oa-backup full, then oa-backup verify --read-data; check the repository's disk".to_owned(),
            ],
        ),
        Finding::ServerDamaged { id, at, pages, .. } => (
            "data of the server are damaged",
            vec![
                format!("In full backup {} of {}: {}", short(id), w.at(*at), quoted(pages)),
                "Effect: what was on these pages cannot be read, and newer backups do not have it either".to_owned(),
                "What to do: bring damaged tables back with oa-restore table NAME --to a time before the damage, and keep a backup from then with oa-backup pin; rebuild damaged indexes with REINDEX; then oa-backup full".to_owned(),
            ],
        ),
        Finding::BackupUnverified { last, never, .. } => (
            "the backups have not been read back for a long time",
            vec![
                format!(
                    "{} {}{}; that is due every {} (verify_limit)",
                    if *never { "The first backup ended at" } else { "They were last read back at" },
                    dated(last, w),
                    if *never { " and none was ever read back" } else { "" },
                    w.span(last.limit)
                ),
                "Effect: what has silently rotted on the disk is noticed only by a restore".to_owned(),
                "What to do: run oa-backup verify --read-data, and put it into the crontab".to_owned(),
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
        _ => return None,
    })
}

fn of_drills(finding: &Finding, w: &Wording) -> Option<(&'static str, Vec<String>)> {
    Some(match finding {
        Finding::BackupUnrecoverable { at, id, error, .. } => (
            "a backup does not recover",
            vec![
                format!(
                    "{}, backup {} in a private server: {}",
                    w.at(*at),
                    short(id),
                    quoted(error)
                ),
                "Effect: the newest backup can probably not be restored, only an older one".to_owned(),
                "What to do: make another one with oa-backup full, which is tried in the same way; try older ones with oa-restore drill ID (oa-backup list)".to_owned(),
            ],
        ),
        Finding::DrillFailed {
            at, backup, error, ..
        } => (
            "the restore drill failed",
            vec![
                format!("{}, with backup {}: {}", w.at(*at), short(backup), quoted(error)),
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
                        dated(last, w),
                        w.span(last.limit)
                    )
                } else {
                    format!(
                        "The last one with success was at {}; one is due every {} (drill_every)",
                        dated(last, w),
                        w.span(last.limit)
                    )
                },
                "Effect: a backup that was never restored is none".to_owned(),
                "What to do: run oa-restore drill --yes, and put it into the crontab".to_owned(),
            ],
        ),
        _ => return None,
    })
}

fn dated(age: &Age, w: &Wording) -> String {
    format!("{} ({} ago)", w.at(age.at), w.span(age.age))
}

const LATE_EFFECT: &str =
    "Effect: should the database be lost now, what came later could not be restored";
const ABSENT_REMEDY: &str = "What to do: run oa-backup full, and check that the crontab runs oa-backup, and why the last run failed (oa-backup status)";
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
