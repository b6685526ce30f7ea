//! In Chinese.

use oa_core::model::event::Kind;
use oa_core::model::event::{Age, Event, Fault, Finding, NamedBackup, RunFailed, Severity, Work};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::Status;

use super::{Draft, Wording, bytes, found_title, name, quoted};

/// The title with what it is in front.
pub(super) fn prefixed(event: &Event, title: &str) -> String {
    let mark = match (event.kind(), event.severity()) {
        (Kind::Recovery, _) => "【恢复】",
        (_, Severity::Critical) if event.kind() == Kind::Problem => "【故障】",
        _ => "【警告】",
    };
    format!("{mark}{title}")
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
                    "故障始于 {}，持续 {}，其间失败 {failures} 次",
                    w.at(*since),
                    w.between(*since, *finished_at)
                ));
            }
            lines.push(format!(
                "本次于 {} 成功，收到 {fetched} 条记录",
                w.at(*finished_at)
            ));
            lines.push(format!("运行编号：{run}"));
            Draft {
                title: format!("{} 恢复正常", name(task, title)),
                lines,
            }
        }
        Event::TaskRetired {
            task,
            title,
            notified_at,
        } => Draft {
            title: format!("{} 已停用，故障关闭", name(task, title)),
            lines: vec![format!(
                "任务已用 oa-crawl forget 停用；故障最近一次告警于 {}",
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
                .map_or_else(String::new, |task| format!("：{task}"));
            Draft {
                title: format!("{host} {what}{about}"),
                lines: vec![
                    format!("原因：{}", quoted(reason)),
                    format!("发现于：{}", w.at(*at)),
                    format!("影响：{effect}"),
                    format!("处理：{remedy}"),
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
                    "故障始于 {}，持续 {}，{} 恢复",
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
            title: format!("{}：已解除", found_title(of, w)),
            lines: vec![format!(
                "始于 {}，持续 {}，{} 解除",
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
            title: format!("告警通道 {channel} 放弃了 {} 条告警", lost.count),
            lines: vec![
                format!("原因：通道连续 24 小时拒收（{}）", quoted(error)),
                format!("影响：只看该通道的人没有收到：{}", w.titles(lost)),
                format!(
                    "处理：按原因修复后执行 oa-alert test {channel}；全部内容见 oa-alert list --all --format json"
                ),
            ],
        },
        Event::ChannelRefuses { channel, error } => Draft {
            title: format!("告警通道 {channel} 拒收消息"),
            lines: vec![
                format!("原因：{}", quoted(error)),
                "影响：只看该通道的人收不到告警；继续重试，24 小时后放弃".to_owned(),
                format!("处理：按原因修复后执行 oa-alert test {channel}"),
            ],
        },
        Event::ChannelRecovered {
            channel,
            lasted,
            lost,
        } => {
            let lasted = w.span(*lasted);
            let mut lines = vec![if lost.count == 0 {
                format!("距首次报告 {lasted}")
            } else {
                format!("距首次放弃告警 {lasted}")
            }];
            if lost.count > 0 {
                lines.push(format!(
                    "期间该通道没有收到 ({})：{}",
                    lost.count,
                    w.titles(lost)
                ));
            }
            Draft {
                title: format!("告警通道 {channel} 恢复正常"),
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
            title: format!("告警通道 {channel} 拒收了 1 条告警的内容"),
            lines: vec![
                format!("告警：{}", w.text(of).title),
                format!("原因：{}", quoted(error)),
                "影响：该通道没有收到这条告警".to_owned(),
                format!("处理：全文见网页或 oa-alert list --all --format json（编号 {alert}）"),
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
        Status::Partial => "数据不完整",
        Status::Timeout if run.work == Work::Source => "采集超时",
        Status::Timeout => "运行超时",
        Status::Abandoned => "进程中断",
        _ if run.work == Work::Source => "采集失败",
        _ => "运行失败",
    };
    let (cause, remedy) = match run.status {
        Status::Abandoned => (
            "进程没有留下结果就消失了",
            "多为机器重启、内存不足或被人结束；查看本机日志和内存，任务会按排期再次运行",
        ),
        _ => explain(run.work, run.error.kind),
    };
    let mut lines = vec![format!("原因：{cause}（{}）", quoted(&run.error.message))];
    if run.attempts > 0 {
        let took = w.between(run.started_at, run.finished_at);
        lines.push(format!("已尝试：{} 次，历时 {took}", run.attempts));
    }
    lines.push(format!(
        "开始于：{}（连续第 {} 次）",
        w.at(run.failing_since.unwrap_or(run.started_at)),
        run.failures
    ));
    lines.push(match run.last_success_at {
        Some(at) => format!(
            "上次成功：{}（{}前）",
            w.at(at),
            w.between(at, run.finished_at)
        ),
        None => "上次成功：尚无记录".to_owned(),
    });
    let tables = &run.tables;
    let day = run
        .day
        .as_ref()
        .map_or_else(String::new, |day| format!("（数据日期 {day}）"));
    match (run.status, tables.is_empty()) {
        (_, true) => {}
        (Status::Partial, false) => {
            let due = run
                .expected
                .map_or_else(|| "?".to_owned(), |n| n.to_string());
            lines.push(format!(
                "影响：{tables} 只收到 {} 条，应有 {due} 条，已收到的已入库{day}",
                run.collected
            ));
        }
        (_, false) => lines.push(format!("影响：{tables} 没有新数据{day}")),
    }
    let remedy = remedy.replace("{run}", &run.run.to_string());
    lines.push(format!("处理：{remedy}"));
    lines.push(format!("运行编号：{}", run.run));
    Draft {
        title: format!("{} {what}", name(&run.task, &run.title)),
        lines,
    }
}

/// Cause and remedy.
fn explain(work: Work, kind: ErrorKind) -> (&'static str, &'static str) {
    match (work, kind) {
        (Work::Program, ErrorKind::Internal) => (
            "程序以错误结束",
            "用 oa-report logs --run {run} 查看程序输出，修正后再次执行启动该任务的那一行",
        ),
        (Work::Program, ErrorKind::Timeout) => (
            "程序运行超过时间限制，已被结束",
            "查看程序卡在何处；若确实需要更久，调大 --timeout",
        ),
        (Work::Program, ErrorKind::Empty | ErrorKind::Partial) => (
            "程序给出的记录少于下限",
            "核对数据来源当天的数据；若下限不合适，调整 --min-records",
        ),
        (Work::Program, ErrorKind::Shape) => (
            "程序的结果文件没有写出或无法读取",
            "检查程序是否写出了 --result-file 指定的文件",
        ),
        (Work::Backup, ErrorKind::Invalid) => (
            "备份、校验或恢复演练没有通过",
            "按原因修复；仓库里有什么、哪些没有通过，见 oa-backup status 和 oa-backup verify",
        ),
        (Work::Tool, ErrorKind::Invalid) => (
            "两边数据不一致，或有行被隔离",
            "查看该次运行的报告，以及 oa.rejects 中的行与原因",
        ),
        (_, kind) => explain_site(kind),
    }
}

fn explain_site(kind: ErrorKind) -> (&'static str, &'static str) {
    match kind {
        ErrorKind::Network => (
            "网络连接中断或数据没有收全",
            "检查本机网络；若其他来源正常，多为对方网站故障，等待下次自动采集",
        ),
        ErrorKind::Dns => (
            "域名无法解析",
            "检查本机 DNS 与网络，或确认对方网址是否变更",
        ),
        ErrorKind::Tls => ("加密连接失败", "检查对方证书是否过期、本机时间是否准确"),
        ErrorKind::Timeout => (
            "对方网站太慢，超过时间限制",
            "稍后会自动再采；若持续出现，可调大该来源的 timeout",
        ),
        ErrorKind::Http5xx => ("对方网站自身故障", "等待对方恢复，下次会自动再采"),
        ErrorKind::Http429 => ("请求过于频繁，被对方限流", "降低采集频率，或稍后再采"),
        ErrorKind::Http4xx => (
            "对方拒绝了请求",
            "确认网址与参数是否变更，必要时更新来源文件",
        ),
        ErrorKind::Auth => (
            "登录失效或令牌过期",
            "重新登录取得新令牌或 Cookie，更新 .env 后再运行一次",
        ),
        ErrorKind::Blocked => (
            "对方返回了网页（验证码或维护页）而不是数据",
            "用浏览器打开该网站查看，必要时降低频率",
        ),
        ErrorKind::Shape => ("对方数据格式变了", "对照原始归档修改来源文件"),
        ErrorKind::Empty => (
            "对方没有返回任何数据",
            "确认当天是否应有数据，必要时到网站核对",
        ),
        ErrorKind::Invalid => ("数据不符合校验规则", "查看 oa.rejects 中被拒绝的记录及原因"),
        ErrorKind::Partial => (
            "收到的记录少于对方公布的总数",
            "稍后会自动再采；也可手动运行 oa-crawl run 补齐",
        ),
        ErrorKind::Db => (
            "数据库拒绝写入",
            "按错误说明处理数据库；收到的内容已在原始归档中",
        ),
        ErrorKind::Internal => ("本机程序或系统的问题", "查看本机日志、磁盘空间和内存"),
    }
}

/// What is wrong, what it means for the data, and what to do.
fn fault_text(fault: Fault) -> (&'static str, &'static str, &'static str) {
    match fault {
        Fault::DatabaseUnreachable => (
            "连不上数据库",
            "采集照常进行，结果暂存在本机，数据库恢复后自动按序入库",
            "检查 PostgreSQL 是否在运行、地址和密码是否正确",
        ),
        Fault::SchemaUnfit => (
            "数据库结构与程序不符",
            "采集任务全部没有运行",
            "按原因中的提示执行 oa-migrate init，或更新本机的 oa 程序",
        ),
        Fault::SpoolFull => (
            "本机暂存已满，新结果无法入库",
            "新采集的内容只保存在原始归档中，尚未入库",
            "尽快恢复数据库（恢复后自动清空暂存），或调大 [spool] max_size",
        ),
        Fault::SpoolBroken => (
            "本机暂存无法使用",
            "目前结果直接入库；若数据库此时也中断，结果将无处存放",
            "清理磁盘空间；文件损坏时将其移走留待检查",
        ),
        Fault::SpoolStuck => (
            "暂存的结果被数据库拒绝",
            "该任务的结果暂存在本机、没有丢失，但尚未入库；其后的结果也排队等候",
            "按原因修复数据表（如 oa-migrate init、oa-migrate dedupe），然后执行 oa-crawl drain",
        ),
    }
}

fn fault_over(fault: Fault) -> &'static str {
    match fault {
        Fault::DatabaseUnreachable => "已连上数据库，暂存的结果正在按序入库",
        Fault::SchemaUnfit => "数据库结构已与程序相符，采集恢复",
        Fault::SpoolFull => "本机暂存已清空",
        Fault::SpoolBroken => "本机暂存恢复可用",
        Fault::SpoolStuck => "暂存的结果已入库",
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
            let at = |at: &Option<_>| at.map_or_else(|| "尚无记录".to_owned(), |at| w.at(at));
            let what = if *never {
                "从未运行"
            } else {
                "没有按时运行"
            };
            Draft {
                title: format!("{} {what}", name(task, title)),
                lines: vec![
                    format!(
                        "应于 {} 运行，已晚 {}，没有任何启动记录",
                        w.at(*due_at),
                        w.span(*late)
                    ),
                    format!(
                        "上次启动：{}；上次成功：{}",
                        at(last_started_at),
                        at(last_success_at)
                    ),
                    "影响：此后没有新数据，也没有失败记录".to_owned(),
                    format!(
                        "处理：检查 cron 是否在运行、crontab 中是否有 oa-crawl run --due，以及机器是否关机；不再需要则执行 oa-crawl disable {task}（数据源已删除或改名：oa-crawl forget {task}）"
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
            title: format!("{} 连续 {times} 次数据不完整", name(task, title)),
            lines: vec![
                format!("最近一次：{}", quoted(error)),
                format!(
                    "上次完整：{}",
                    last_success_at.map_or_else(|| "尚无记录".to_owned(), |at| w.at(at))
                ),
                "影响：收到的部分已入库，缺的部分一直没有补上".to_owned(),
                format!(
                    "处理：用 oa-crawl run {task} --dry-run 查看网站现在给出什么；网站确有变化时修改数据源文件，再用 oa-crawl replay {task} --date 日期 补齐"
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
                        "处理：到网站核对当天应有多少条；网站改了分页或筛选时修改数据源文件，再用 oa-crawl replay {task} --date 日期 补齐"
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
            let (what, when) = expiry(w.at(*ends_at), left.map(|left| w.span(left)));
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
        Finding::CertificateExpiring {
            server,
            ends_at,
            left,
        } => {
            let (what, when) = expiry(w.at(*ends_at), left.map(|left| w.span(left)));
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
        backup => found_backup(backup, w),
    }
}

fn expiry(at: String, left: Option<String>) -> (&'static str, String) {
    match left {
        Some(left) => ("即将过期", format!("将于 {at} 过期，还有 {left}")),
        None => ("已过期", format!("已于 {at} 过期")),
    }
}

fn found_backup(finding: &Finding, w: &Wording) -> Draft {
    let since = |age: &Age, first: &str, last: &str, limit: &str| {
        format!(
            "{first}{}（{}前）{last}，应每 {}一次（{limit}）",
            w.at(age.at),
            w.span(age.age),
            w.span(age.limit)
        )
    };
    let (title, lines) = match finding {
        Finding::BackupAbsent {
            repository,
            configured_at,
        } => (
            "没有任何备份",
            vec![
                match configured_at {
                    Some(at) => format!(
                        "自 {} 起已配置仓库 {repository}，但其中没有任何备份",
                        w.at(*at)
                    ),
                    None => format!("仓库 {repository} 是空的，执行 oa-backup full"),
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
                    "最新可恢复到 {}（{}前），目标是最多丢失 {}（rpo）",
                    w.at(age.at),
                    w.span(age.age),
                    w.span(age.limit)
                ));
            }
            lines.extend(
                full.as_ref()
                    .map(|age| since(age, "最近一次全量备份完成于 ", "", "full_every")),
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
                format!("备份 {id} 校验失败：{}", quoted(error)),
                "影响：这份备份可能无法恢复，依赖它的增量也可能无法恢复".to_owned(),
                "处理：立即执行 oa-backup full 做一份新的全量备份，再执行 oa-backup verify --read-data；检查仓库所在磁盘"
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
                    since(last, "上次完整读回校验是 ", "", "verify_limit")
                },
                "影响：磁盘上悄悄损坏的数据，要到恢复时才会发现".to_owned(),
                "处理：执行 oa-backup verify --read-data，并把它加入 crontab".to_owned(),
            ],
        ),
        Finding::DrillFailed {
            at, backup, error, ..
        } => (
            "恢复演练失败",
            vec![
                format!("{} 用备份 {backup} 演练：{}", w.at(*at), quoted(error)),
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
                    since(last, "上次成功演练是 ", "", "drill_every")
                },
                "影响：没有恢复过的备份不能算备份".to_owned(),
                "处理：执行 oa-restore drill --yes，并把它加入 crontab".to_owned(),
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
        other => (other.rule(), Vec::new()),
    };
    Draft {
        title: title.to_owned(),
        lines,
    }
}

const LATE_EFFECT: &str = "影响：此刻如果数据库损坏，之后的数据无法从备份恢复";
const LATE_REMEDY: &str =
    "处理：检查 crontab 中 oa-backup 是否按时运行、上一次为何失败（oa-backup status）";

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
