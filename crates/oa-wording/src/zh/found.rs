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
    let first = first.collect::<Vec<_>>().join("、");
    match tasks.len().saturating_sub(TASKS) {
        0 => first,
        more => format!("{first} 等（另有 {more} 个）"),
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
        days.push_str(&format!("，此前还有 {} 天", missed.earlier_days));
    }
    let mut line = match last {
        Some(last) => format!(
            "漏 {} 次，最后一次应于 {}；日期：{days}",
            missed.times,
            w.at(last)
        ),
        None if all > 1 => format!("漏 {all} 天：{days}"),
        None => return None,
    };
    if missed.unfetchable > 0 {
        line.push_str(&format!("；其中 {} 次网站已不再提供", missed.unfetchable));
    }
    Some(line)
}

fn fill_line(task: &str, missed: &Missed) -> Option<String> {
    let (from, to) = missed.backfill?;
    Some(format!(
        "补采：oa-crawl backfill {task} --from {from} --to {to}"
    ))
}

/// What became of what was missed.
pub(super) fn ended(ended: &MissedEnd) -> Vec<String> {
    let who = name(&ended.task, &ended.title);
    let mut lines = Vec::new();
    if !ended.made_up.is_empty() {
        lines.push(format!("{who} 已补：{}", day_list(&ended.made_up)));
    }
    if let (Some(first), Some(last)) = (ended.left.first(), ended.left.last()) {
        let days = day_list(&ended.left);
        lines.push(format!("{who} 仍缺 {} 次：{days}", ended.left_count));
        if ended.backfills {
            lines.push(format!(
                "补采：oa-crawl backfill {} --from {first} --to {last}",
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
            let at = |at: &Option<_>| at.map_or_else(|| "尚无记录".to_owned(), |at| w.at(at));
            let what = match (missed.runs_again, *never) {
                (true, _) => "有漏采未补",
                (_, true) => "从未运行",
                _ => "没有按时运行",
            };
            let when = match expected {
                Expected::Rhythm => format!(
                    "按以往规律应于 {} 运行，已晚 {}，没有任何启动记录",
                    w.at(*due_at),
                    w.span(*late)
                ),
                _ if missed.runs_again => format!("最早一次应于 {} 运行", w.at(*due_at)),
                _ => format!(
                    "应于 {} 运行，已晚 {}，没有任何启动记录",
                    w.at(*due_at),
                    w.span(*late)
                ),
            };
            let mut lines = vec![when];
            lines.extend(missed_line(missed, w));
            lines.push(format!(
                "上次启动：{}；上次成功：{}",
                at(last_started_at),
                at(last_success_at)
            ));
            lines.push(match missed.runs_again {
                true => "影响：任务已恢复运行，但上述日期没有数据".to_owned(),
                false => "影响：此后没有新数据，也没有失败记录".to_owned(),
            });
            lines.extend(fill_line(task, missed));
            if !missed.runs_again {
                lines.push(match expected {
                    Expected::Source => format!(
                        "处理：检查 cron 是否在运行、crontab 中是否有 oa-crawl run --due，以及机器是否关机；不再需要则执行 oa-crawl disable {task}（数据源已删除或改名：oa-crawl forget {task}）"
                    ),
                    Expected::Configured => format!(
                        "处理：检查 cron 是否在运行、crontab 中启动它的那一行是否还在，以及机器是否关机；不再需要则先从配置中删除它的 schedule，再执行 oa-crawl forget {task}"
                    ),
                    Expected::Rhythm if task == "backup-stream" => {
                        "处理：重新启动：systemctl start oa-backup-stream，或 oa-backup stream；结束原因见其日志。不再需要则执行 oa-crawl forget backup-stream".to_owned()
                    }
                    Expected::Rhythm => format!(
                        "处理：检查 cron 是否在运行、crontab 中启动它的那一行是否还在，以及机器是否关机；不再需要则执行 oa-crawl forget {task}"
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
                    "{} 至 {} 没有任何启动（cron 停止或机器关机）",
                    w.at(*since),
                    w.at(*until)
                ),
                None => format!("{} 之后没有任何启动（cron 停止或机器关机）", w.at(*since)),
            }];
            for of in tasks.iter().take(TASKS) {
                let what = missed_line(&of.missed, w);
                let what = what.unwrap_or_else(|| format!("应于 {} 运行", w.at(of.due_at)));
                let fill = fill_line(&of.task, &of.missed);
                let fill = fill.map_or_else(String::new, |fill| format!("；{fill}"));
                lines.push(format!("{}：{what}{fill}", name(&of.task, &of.title)));
            }
            if count > TASKS {
                lines.push(format!("另有 {} 个任务", count - TASKS));
            }
            lines.push("影响：以上日期没有数据，也没有失败记录".to_owned());
            if until.is_none() {
                lines.push(
                    "处理：检查 cron 是否在运行、crontab 中是否有 oa-crawl run --due；恢复后会按 catch_up 自动补采".to_owned(),
                );
            }
            Draft {
                title: match until {
                    Some(_) => format!("停机期间 {count} 个任务有漏采"),
                    None => format!("定时启动停止，{count} 个任务没有运行"),
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
            title: format!("{} 连续 {times} 次数据不完整", name(task, title)),
            lines: vec![
                format!("最近一次：{}", quoted(error)),
                format!(
                    "上次完整：{}",
                    last_success_at.map_or_else(|| "尚无记录".to_owned(), |at| w.at(at))
                ),
                "影响：收到的部分已入库，缺的部分一直没有补上".to_owned(),
                format!(
                    "处理：用 oa-crawl run {task} --dry-run 查看网站现在给出什么；网站确有变化时修改数据源文件，再用 oa-crawl replay {task} --date 日期 --yes 补齐"
                ),
            ],
        },
        Finding::OpeningAtRisk {
            task,
            title,
            session,
            opens_at,
            failing_since,
        } => {
            let session = if session == "night" {
                "夜盘"
            } else {
                "日盘"
            };
            Draft {
                title: format!("{session}即将开盘，{} 仍未恢复", name(task, title)),
                lines: vec![
                    format!("{session} {} 开盘", w.at(*opens_at)),
                    format!("故障始于：{}", w.at(*failing_since)),
                    "影响：开盘后这个数据源没有新数据".to_owned(),
                    format!("处理：按它自己的告警修复，再执行 oa-crawl run {task}"),
                ],
            }
        }
        Finding::RunTooLong {
            task,
            title,
            started_at,
            lasts,
            host,
        } => Draft {
            title: format!("{} 运行时间过长", name(task, title)),
            lines: vec![
                format!(
                    "始于 {}，已运行 {}，在 {host} 上",
                    w.at(*started_at),
                    w.span(*lasts)
                ),
                "影响：它结束之前没有新数据，同一任务的下一次运行也会跳过".to_owned(),
                "处理：到该机器查看进程；确认卡住后结束它，运行会记为中断并重新排期".to_owned(),
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
            title: format!("{} 数据没有更新", name(task, title)),
            lines: vec![
                format!(
                    "采集都成功，但 {last} 之后的 {days} 个交易日没有任何新增或变化的记录；平时每个交易日都有"
                ),
                format!("影响：数据停留在 {last}，之后的内容是旧的"),
                format!(
                    "处理：打开网站核对是否更新；网站已更新则用 oa-crawl run {task} --dry-run 查看采到什么，必要时修改数据源文件；确属停更可执行 oa-alert ack {task}"
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
                title: format!("{} 记录数明显减少", name(task, title)),
                lines: vec![
                    format!(
                        "最近 {} 个交易日的条数：{}；此前通常每日 {usual} 条",
                        came.len(),
                        each.join("、")
                    ),
                    "影响：采集都成功，但可能有一部分数据不再采到".to_owned(),
                    format!(
                        "处理：到网站核对当天应有多少条；网站改了分页或筛选时修改数据源文件，再用 oa-crawl replay {task} --date 日期 --yes 补齐"
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
            title: "数据库连接数接近上限".to_owned(),
            lines: vec![
                format!("已用 {used} 个，上限 {limit} 个"),
                "影响：用尽后任何程序都连不上数据库，采集结果会暂存在本机".to_owned(),
                "处理：在 pg_stat_activity 中找出占用连接的程序，或调大 max_connections".to_owned(),
            ],
        },
        Finding::WalHeld { slot, bytes: held } => Draft {
            title: format!("复制槽 {slot} 占住 {} 预写日志（WAL）", bytes(*held)),
            lines: vec![
                "影响：没有程序在读它，日志会一直增长直到写满数据库磁盘".to_owned(),
                format!(
                    "处理：恢复读取它的程序，或确认不再需要后执行 SELECT pg_drop_replication_slot('{slot}')"
                ),
            ],
        },
        Finding::NetworkDown { host, since, tasks } => Draft {
            title: format!("{host} 的网络中断，{} 个任务无法采集", tasks.len()),
            lines: vec![
                format!("{} 起，连不上 3 家以上网站，期间无一成功", w.at(*since)),
                format!("受影响：{}", listed(tasks)),
                "影响：这些任务没有新数据；它们各自的告警已并入本条".to_owned(),
                format!(
                    "处理：在 {host} 上检查网络、DNS 与代理（ping、nslookup、curl -v 任一网站）；恢复后各任务下次运行即可采集"
                ),
            ],
        },
        Finding::ClockOff { host, seconds } => Draft {
            title: format!("{host} 的时钟与数据库相差 {seconds} 秒"),
            lines: vec![
                "影响：机器人签名会出错；数据库断开期间，按本机时钟判断何时运行".to_owned(),
                "处理：检查两台机器的时间同步（timedatectl、chronyc tracking）".to_owned(),
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
                "{path} 所在磁盘剩余 {}（{percent}%），共 {}",
                bytes(*free),
                bytes(*size)
            )];
            lines
                .extend(full_at.map(|at| format!("按最近的增长速度，将于 {} 前后写满", w.day(at))));
            lines.push("影响：写满后原始归档、暂存和备份都无法写入".to_owned());
            lines.push(
                "处理：清理或扩容；原始归档可缩短保留时间（raw_keep）后执行 oa-crawl prune"
                    .to_owned(),
            );
            Draft {
                title: format!("{host} 磁盘空间不足"),
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
            title: format!("{host} 暂存的结果已等待 {}", w.span(*waits)),
            lines: vec![
                format!(
                    "{entries} 条（{}）在本机暂存，最早的一条放入于 {}",
                    bytes(*size),
                    w.at(*oldest)
                ),
                "影响：这些结果没有丢失，但数据库里还没有，报表和下游程序看不到".to_owned(),
                "处理：确认 PostgreSQL 可用后执行 oa-crawl drain，并按它给出的原因处理".to_owned(),
            ],
        },
        Finding::CookieExpiring {
            host,
            provider,
            ends_at,
            left,
        } => {
            let (what, when) = expiry(&w.at(*ends_at), left.map(|left| w.span(left)));
            Draft {
                title: format!("{provider} 的登录 Cookie {what}"),
                lines: vec![
                    format!("{when}（{host} 上导入的）"),
                    format!("影响：过期后 {provider} 的数据源采不到数据"),
                    format!(
                        "处理：用自己的浏览器登录该网站，导出 Cookie，然后执行 oa-crawl cookies import {provider} 文件"
                    ),
                ],
            }
        }
        Finding::ListenerDown {
            channel,
            last_at,
            error,
        } => {
            let last = last_at.map_or_else(
                || "尚无连接记录".to_owned(),
                |at| format!("最后一次在线：{}", w.at(at)),
            );
            let mut lines = vec![last];
            if !error.is_empty() {
                lines.push(format!("原因：{error}"));
            }
            lines.extend([
                "影响：告警照常送达，但卡片上的按钮按下后无人处理，卡片最多晚一分钟变绿".to_owned(),
                "处理：确认 oa-alert listen 在运行（systemctl status oa-alert-listen，或 crontab 的 @reboot 行）；原因是应用配置时先执行 oa-alert check-config".to_owned(),
            ]);
            Draft {
                title: format!("通道 {channel} 的卡片按钮无人接收"),
                lines,
            }
        }
        Finding::CertificateExpiring {
            server,
            ends_at,
            left,
        } => {
            let (what, when) = expiry(&w.at(*ends_at), left.map(|left| w.span(left)));
            Draft {
                title: format!("数据库 {server} 的证书{what}"),
                lines: vec![
                    when,
                    "影响：过期后，校验证书的程序（sslmode=verify-ca、verify-full）都连不上数据库"
                        .to_owned(),
                    "处理：更换服务器证书（ssl_cert_file），然后执行 SELECT pg_reload_conf()；托管数据库在控制台更新证书"
                        .to_owned(),
                ],
            }
        }
        _ => return None,
    })
}

fn expiry(at: &str, left: Option<String>) -> (&'static str, String) {
    match left {
        Some(left) => ("即将过期", format!("将于 {at} 过期，还有 {left}")),
        None => ("已过期", format!("已于 {at} 过期")),
    }
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
            "没有任何备份",
            vec![
                match configured_at {
                    Some(at) => format!(
                        "自 {} 起已配置仓库 {repository}，但其中没有本服务的备份",
                        w.at(*at)
                    ),
                    None => format!("仓库 {repository} 中没有本服务的备份"),
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
                    "最新可恢复到 {}（{}前），目标是最多丢失 {}（rpo）",
                    w.at(age.at),
                    w.span(age.age),
                    w.span(age.limit)
                ));
            }
            lines.extend(
                full.as_ref()
                    .map(|age| dated(age, "最近一次全量备份完成于 ", "full_every", w)),
            );
            lines.push(LATE_EFFECT.to_owned());
            lines.push(LATE_REMEDY.to_owned());
            ("备份没有按时完成", lines)
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
                lines.push(format!(
                    "仓库 {repository} 中缺少 {gone_count} 份曾经记录的备份：{}",
                    named(gone, *gone_count, w)
                ));
            }
            if *stranded_count > 0 {
                lines.push(format!(
                    "{stranded_count} 份增量备份所依赖的全量备份已不在仓库中，无法恢复：{}",
                    named(stranded, *stranded_count, w)
                ));
            }
            lines.push("影响：这些备份所覆盖的时间点无法恢复".to_owned());
            lines.push("处理：检查仓库所在磁盘是否已挂载、是否被替换或回滚；从其他副本找回文件。确认无法找回时：oa-backup full，然后 oa-backup prune --missing".to_owned());
            ("备份从仓库中消失", lines)
        }
        Finding::BackupDamaged { id, error, .. } => (
            "备份校验失败",
            vec![
                format!("备份 {} 校验失败：{}", short(id), quoted(error)),
                "影响：这份备份可能无法恢复，依赖它的增量也可能无法恢复".to_owned(),
                "处理：立即执行 oa-backup full 做一份新的全量备份，再执行 oa-backup verify --read-data；检查仓库所在磁盘"
                    .to_owned(),
            ],
        ),
        Finding::ServerDamaged { id, at, pages, .. } => (
            "数据库服务器的数据页损坏",
            vec![
                format!("{} 的全量备份 {} 中：{}", w.at(*at), short(id), quoted(pages)),
                "影响：这些页上的数据已无法读取，之后的备份中也没有".to_owned(),
                "处理：用 oa-restore table 表名 --to 损坏之前的时间 找回受损的表，并用 oa-backup pin 保留那时的备份；受损的索引用 REINDEX 重建；然后执行 oa-backup full"
                    .to_owned(),
            ],
        ),
        Finding::BackupUnverified { last, never, .. } => (
            "备份很久没有完整读回",
            vec![
                if *never {
                    format!(
                        "第一份备份完成于 {}（{}前），至今没有完整读回校验过；应每 {}一次（verify_limit）",
                        w.at(last.at),
                        w.span(last.age),
                        w.span(last.limit)
                    )
                } else {
                    dated(last, "上次完整读回校验是 ", "verify_limit", w)
                },
                "影响：磁盘上悄悄损坏的数据，要到恢复时才会发现".to_owned(),
                "处理：执行 oa-backup verify --read-data，并把它加入 crontab".to_owned(),
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
                "仓库 {repository} 现有 {}，所在磁盘剩余 {}",
                bytes(*size),
                bytes(*free)
            )];
            lines.extend(needed.map(|needed| {
                format!(
                    "上一次全量备份新增 {}，下一次很可能放不下",
                    bytes(needed)
                )
            }));
            lines.extend(full_at.map(|at| format!("按最近的增长速度，将于 {} 前后写满", w.day(at))));
            lines.push("影响：写满后不再有新的备份".to_owned());
            lines.push(
                "处理：扩容，或减少保留份数（keep_daily、keep_weekly）后执行 oa-backup prune"
                    .to_owned(),
            );
            ("备份仓库空间不足", lines)
        }
        _ => return None,
    })
}

fn of_drills(finding: &Finding, w: &Wording) -> Option<(&'static str, Vec<String>)> {
    Some(match finding {
        Finding::BackupUnrecoverable { at, id, error, .. } => (
            "备份无法恢复",
            vec![
                format!(
                    "{} 在临时服务器上恢复备份 {} 失败：{}",
                    w.at(*at),
                    short(id),
                    quoted(error)
                ),
                "影响：最新的备份很可能恢复不了，只能依靠更早的备份".to_owned(),
                "处理：执行 oa-backup full 再做一份备份（完成后会自动再次验证）；更早的备份请用 oa-restore drill ID 逐一确认（ID 见 oa-backup list）"
                    .to_owned(),
            ],
        ),
        Finding::DrillFailed {
            at, backup, error, ..
        } => (
            "恢复演练失败",
            vec![
                format!("{} 用备份 {} 演练：{}", w.at(*at), short(backup), quoted(error)),
                "影响：真正需要恢复时很可能也会失败".to_owned(),
                "处理：按原因修复后再执行 oa-restore drill；同时执行 oa-backup full 再做一份备份"
                    .to_owned(),
            ],
        ),
        Finding::DrillSlow {
            at,
            took,
            objective,
            ..
        } => (
            "恢复演练慢于目标",
            vec![
                format!(
                    "{} 的演练用了 {}，目标是不超过 {}（rto）",
                    w.at(*at),
                    w.span(*took),
                    w.span(*objective)
                ),
                "影响：数据库损坏时，服务中断会比承诺的更久".to_owned(),
                "处理：把仓库放到更快的磁盘、增加全量备份的频率，或调大 [backup] rto".to_owned(),
            ],
        ),
        Finding::DrillOverdue { last, never, .. } => (
            "恢复演练逾期",
            vec![
                if *never {
                    format!(
                        "第一份备份完成于 {}（{}前），至今没有成功演练过；应每 {}一次（drill_every）",
                        w.at(last.at),
                        w.span(last.age),
                        w.span(last.limit)
                    )
                } else {
                    dated(last, "上次成功演练是 ", "drill_every", w)
                },
                "影响：没有恢复过的备份不能算备份".to_owned(),
                "处理：执行 oa-restore drill --yes，并把它加入 crontab".to_owned(),
            ],
        ),
        _ => return None,
    })
}

fn dated(age: &Age, what: &str, limit: &str, w: &Wording) -> String {
    format!(
        "{what}{}（{}前），应每 {}一次（{limit}）",
        w.at(age.at),
        w.span(age.age),
        w.span(age.limit)
    )
}

const LATE_EFFECT: &str = "影响：此刻如果数据库损坏，之后的数据无法从备份恢复";
const ABSENT_REMEDY: &str = "处理：执行 oa-backup full，并检查 crontab 中 oa-backup 是否按时运行、上一次为何失败（oa-backup status）";
const LATE_REMEDY: &str =
    "处理：检查 crontab 中 oa-backup 是否按时运行、上一次为何失败（oa-backup status）";

fn named(backups: &[NamedBackup], count: usize, w: &Wording) -> String {
    let named: Vec<String> = backups
        .iter()
        .map(|b| {
            let word = |of: &str| match of {
                "full" => "全量".to_owned(),
                "incremental" => "增量".to_owned(),
                "physical" => "物理备份".to_owned(),
                "logical" => "逻辑备份".to_owned(),
                other => other.to_owned(),
            };
            let (level, kind) = (word(&b.level), word(&b.kind));
            format!("{}（{level}{kind}，{}）", b.short_id, w.at(b.restorable_to))
        })
        .collect();
    match count.saturating_sub(named.len()) {
        0 => named.join("、"),
        more => format!("{} 等（另有 {more} 份）", named.join("、")),
    }
}
