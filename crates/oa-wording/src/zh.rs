//! The Chinese catalogue.

mod found;

use oa_core::model::event::{
    Event, Fault, GivenUp, Kind, RunFailed, SchemaVersions, Severity, Work,
};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::Status;

use super::{Draft, Wording, found_title, name, quoted, with_names};

/// The title with what it is in front.
pub(super) fn prefixed(event: &Event, title: &str) -> String {
    let mark = match (event.kind(), event.severity()) {
        // 「恢复演练失败」 is not what is 恢复.
        (Kind::Recovery, _) if ended(event) => "【解除】",
        (Kind::Recovery, _) => "【恢复】",
        (Kind::Message, Severity::Info) => "【通知】",
        (_, Severity::Critical) if event.kind() == Kind::Problem => "【故障】",
        _ => "【警告】",
    };
    format!("{mark}{title}")
}

/// Why a schema does not fit, and what to do.
fn misfit(versions: SchemaVersions) -> String {
    let needed = versions.needed;
    match versions.found {
        None => "数据库中没有 oa 结构；创建：oa-migrate init".to_owned(),
        Some(found) if found < needed => {
            format!("数据库结构是第 {found} 版，本机程序需要第 {needed} 版；升级：oa-migrate init")
        }
        Some(found) => format!(
            "数据库结构是第 {found} 版，比本机程序认识的第 {needed} 版新；请更新本机的 oa 程序"
        ),
    }
}

/// Whether nothing is left of what was found, or of what it was found of.
fn ended(event: &Event) -> bool {
    match event {
        Event::FoundNoMore { ended, .. } => ended.iter().all(|e| e.left_count == 0),
        Event::ChannelRemoved { .. } => true,
        _ => false,
    }
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
            schema,
            at,
        } => {
            let reason = schema.map_or_else(|| quoted(reason), misfit);
            let (what, effect, remedy) = fault_text(*fault);
            let about = task
                .as_ref()
                .map_or_else(String::new, |task| format!("：{task}"));
            Draft {
                title: format!("{host} {what}{about}"),
                lines: vec![
                    format!("原因：{reason}"),
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
                0 => String::new(),
                n => format!("：已恢复运行，仍缺 {n} 次"),
            };
            let mut lines = vec![format!(
                "始于 {}，持续 {}，{} 解除",
                w.at(*opened_at),
                w.between(*opened_at, *at),
                w.at(*at)
            )];
            lines.extend(ended.iter().flat_map(found::ended));
            Draft {
                title: format!("{}{how}", found_title(of, w)),
                lines,
            }
        }
        Event::ChannelGaveUp {
            channel,
            lost,
            error,
            why,
        } => Draft {
            title: format!("告警通道 {channel} 放弃了 {} 条告警", lost.count),
            lines: vec![
                match why {
                    GivenUp::Refused => format!("原因：通道连续 24 小时拒收（{}）", quoted(error)),
                    GivenUp::Unanswered => {
                        format!("原因：发送 3 次都没有得到应答（{}）", quoted(error))
                    }
                    GivenUp::Content => {
                        format!(
                            "原因：通道拒收其内容，略去正文后仍然拒收（{}）",
                            quoted(error)
                        )
                    }
                },
                format!(
                    "影响：只看该通道的人{}没有收到：{}",
                    if *why == GivenUp::Unanswered {
                        "可能"
                    } else {
                        ""
                    },
                    w.titles(lost)
                ),
                format!(
                    "处理：按原因修复后执行 oa-alert test {channel}；各条全文见 oa-alert list --all 与 oa-alert show 编号"
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
            unsure,
        } => {
            let lasted = w.span(*lasted);
            let mut lines = vec![if lost.count == 0 {
                format!("距首次报告 {lasted}")
            } else {
                format!("距首次放弃告警 {lasted}")
            }];
            if lost.count > 0 {
                lines.push(format!(
                    "期间该通道{}没有收到 ({})：{}",
                    if *unsure { "可能" } else { "" },
                    lost.count,
                    w.titles(lost)
                ));
            }
            Draft {
                title: format!("告警通道 {channel} 恢复正常"),
                lines,
            }
        }
        Event::ChannelRemoved {
            channel,
            lost,
            unsure,
        } => {
            let mut lines = vec![
                "没有机器使用这个通道：至少一小时前从配置中移除，或者配置了它的机器三天没有运行"
                    .to_owned(),
            ];
            if lost.count > 0 {
                lines.push(format!(
                    "该通道{}没有收到 ({})：{}",
                    if *unsure { "可能" } else { "" },
                    lost.count,
                    w.titles(lost)
                ));
            }
            Draft {
                title: format!("告警通道 {channel} 已无机器使用，故障关闭"),
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
                format!("处理：全文见网页或 oa-alert show {alert}"),
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
            title: "全量备份成功".to_owned(),
            lines: vec![
                format!(
                    "备份：{backup}（{}），{repository}",
                    if kind == "physical" {
                        "物理"
                    } else {
                        "逻辑"
                    }
                ),
                format!("可恢复至：{}", w.at(*restorable_to)),
                format!(
                    "大小：{}，仓库新增 {}",
                    super::bytes(*size),
                    super::bytes(*added)
                ),
                format!("耗时：{}", w.span(*took)),
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
    let (cause, remedy) = why(run.work, run.status, run.error.kind);
    let mut lines = vec![format!("原因：{cause}（{}）", quoted(&run.error.message))];
    if run.attempts > 0 {
        let took = w.between(run.started_at, run.finished_at);
        lines.push(format!("已尝试：{} 次，历时 {took}", run.attempts));
    }
    let since = w.at(run.failing_since.unwrap_or(run.started_at));
    lines.push(if run.history_unknown {
        format!("开始于：{since}")
    } else {
        format!("开始于：{since}（连续第 {} 次）", run.failures)
    });
    lines.push(match run.last_success_at {
        _ if run.history_unknown => "上次成功：数据库连不上，暂不可知".to_owned(),
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
        (_, true) if run.work == Work::Backup => {
            lines.push(
                "影响：这次备份、校验或演练没有完成；能恢复到什么时间，以 oa-backup status 为准"
                    .to_owned(),
            );
        }
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
    let remedy = with_names(remedy, &run.task, run.run);
    lines.push(format!("处理：{remedy}"));
    if !run.host.is_empty() {
        lines.push(format!("主机：{}", run.host));
    }
    lines.push(format!("运行编号：{}", run.run));
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
            "进程没有留下结果就消失了",
            "多为机器重启、内存不足或被人结束：查看该机器的日志和内存（journalctl -k、free -h）；任务会按排期再次运行",
        ),
        _ => explain(work, kind),
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
        (Work::Backup, ErrorKind::Internal) => (
            "备份或恢复程序没有成功",
            "按括号中的原因处理；现状见 oa-backup status",
        ),
        (Work::Backup, ErrorKind::Invalid) => (
            "备份、校验或恢复演练没有通过",
            "按原因修复；仓库里有什么、哪些没有通过，见 oa-backup status 和 oa-backup verify",
        ),
        (Work::Tool, ErrorKind::Invalid) => (
            "两边数据不一致，或有行被隔离",
            "查看该次运行的报告，以及 oa.rejects 中的行与原因",
        ),
        (Work::Source, kind) => explain_site(kind),
        (_, kind) => (explain_site(kind).0, mend(kind)),
    }
}

/// What to do about what is no source.
fn mend(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Network | ErrorKind::Dns | ErrorKind::Tls | ErrorKind::Timeout => {
            "检查该机器与对方之间的网络（地址、DNS、证书），再次执行启动它的那一行"
        }
        ErrorKind::Db => "按括号中的原因处理数据库，再次执行启动它的那一行",
        _ => "按括号中的原因处理，再次执行启动它的那一行；详情：oa-report logs --run {run}",
    }
}

fn explain_site(kind: ErrorKind) -> (&'static str, &'static str) {
    match kind {
        ErrorKind::Network => (
            "网络连接中断或数据没有收全",
            "检查该机器的网络；其他数据源正常时多为对方网站故障，下次会自动再采；立即重采：oa-crawl run {task}",
        ),
        ErrorKind::Dns => (
            "域名无法解析",
            "检查该机器的 DNS 与网络，确认对方网址有没有变；恢复后执行 oa-crawl run {task}",
        ),
        ErrorKind::Tls => (
            "加密连接失败",
            "检查对方证书是否过期、该机器的时间是否准确；恢复后执行 oa-crawl run {task}",
        ),
        ErrorKind::Timeout => (
            "对方网站太慢，超过时间限制",
            "下次会自动再采；若持续出现，在该数据源文件中调大 timeout；立即重采：oa-crawl run {task}",
        ),
        ErrorKind::Http5xx => (
            "对方网站自身故障",
            "等待对方恢复，下次会自动再采；立即重采：oa-crawl run {task}",
        ),
        ErrorKind::Http429 => (
            "请求过于频繁，被对方限流",
            "在该数据源文件的 schedule 中降低采集频率；稍后重采：oa-crawl run {task}",
        ),
        ErrorKind::Http4xx => (
            "对方拒绝了请求",
            "核对网址与参数有没有变，必要时修改数据源文件；用 oa-crawl run {task} --dry-run 查看对方现在给出什么",
        ),
        ErrorKind::Auth => (
            "登录失效或令牌过期",
            "重新登录取得新令牌，写入 .env（Cookie 用 oa-crawl cookies import 导入），再执行 oa-crawl run {task}",
        ),
        ErrorKind::Blocked => (
            "对方返回了网页（验证码或维护页）而不是数据",
            "用浏览器打开该网站查看，必要时降低采集频率；恢复后执行 oa-crawl run {task}",
        ),
        ErrorKind::Shape => (
            "对方数据格式变了",
            "用 oa-crawl run {task} --dry-run 查看对方现在给出什么，修改数据源文件后再执行 oa-crawl run {task}",
        ),
        ErrorKind::Empty => (
            "对方没有返回任何数据",
            "到网站核对当天是否应有数据；立即重采：oa-crawl run {task}",
        ),
        ErrorKind::Stale => (
            "对方还没有更新，内容仍是之前某天的",
            "下次会自动再采；若该数据源本来就可能几天不变，在数据源文件中写 may_repeat = true",
        ),
        ErrorKind::Invalid => (
            "数据不符合校验规则",
            "被拒绝的记录及原因见网页上的这次运行，或 oa.rejects（run_id = '{run}'）",
        ),
        ErrorKind::Partial => (
            "收到的记录少于对方公布的总数",
            "下次会自动再采；立即补齐：oa-crawl run {task}",
        ),
        ErrorKind::Db => (
            "数据库拒绝写入",
            "按括号中的原因处理数据库；收到的内容在原始归档中，没有丢失；修复后执行 oa-crawl run {task}",
        ),
        ErrorKind::Internal => (
            "本机程序或系统的问题",
            "查看该机器的日志、磁盘空间和内存；详情：oa-report logs --run {run}",
        ),
    }
}

/// What is wrong, what it means for the data, and what to do.
fn fault_text(fault: Fault) -> (&'static str, &'static str, &'static str) {
    match fault {
        Fault::DatabaseUnreachable => (
            "连不上数据库",
            "采集照常进行，结果暂存在本机，数据库恢复后自动按序入库",
            "检查 PostgreSQL 是否在运行、地址和密码是否正确：oa-report doctor 会逐项检查并给出命令",
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
        Fault::NoStore => (
            "数据库和本机磁盘都无法写入",
            "期间的采集没有运行，或结果无处存放；恢复后用 oa-report days 查看缺哪些天，用 oa-crawl backfill 补采",
            "先恢复其中之一：启动 PostgreSQL，或清理 state_dir 所在磁盘",
        ),
        Fault::SpoolStuck => (
            "暂存的结果被数据库拒绝",
            "该任务的结果暂存在本机、没有丢失，但尚未入库；其后的结果也排队等候",
            "按原因修复数据表（如 oa-migrate init、oa-migrate dedupe），然后执行 oa-crawl drain",
        ),
        Fault::CheckFailed => (
            "告警检查无法完成",
            "数据库可以连上，但检查没有做完：没有按时运行、数据停更、备份过期等目前无人发现（原因中列出任务时，仅这些任务的漏跑无人发现）；各任务自身的失败仍会告警",
            "按原因修复：超时（57014、55P03）查看数据库负载与锁；权限不足（42501）执行原因中缺少的 GRANT；磁盘满（53100）清理数据库所在磁盘；修复后执行 oa-alert check",
        ),
    }
}

fn fault_over(fault: Fault) -> &'static str {
    match fault {
        Fault::DatabaseUnreachable => "已连上数据库，暂存的结果正在按序入库",
        Fault::SchemaUnfit => "数据库结构已与程序相符，采集恢复",
        Fault::SpoolFull => "本机暂存已清空",
        Fault::SpoolBroken => "本机暂存恢复可用",
        Fault::NoStore => "又能存放结果了",
        Fault::SpoolStuck => "暂存的结果已入库",
        Fault::CheckFailed => "告警检查恢复正常",
    }
}
