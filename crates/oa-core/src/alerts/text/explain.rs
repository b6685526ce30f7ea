//! What an error means, and what to do about it, in words.

use crate::config::Locale;
use crate::retry::ErrorKind;
use crate::runs::Outcome;

/// What a run does, which decides about words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Collects a site.
    Source,
    /// Runs a program of the operator's own.
    Program,
    /// Makes, verifies or restores backups.
    Backup,
    /// Anything else: a migration.
    Tool,
}

impl Work {
    pub(super) fn of(outcome: &Outcome) -> Self {
        if outcome.details.contains_key("program") {
            return Self::Program;
        }
        match outcome.start.tool.as_str() {
            "oa-crawl" => Self::Source,
            "oa-backup" | "oa-restore" => Self::Backup,
            _ => Self::Tool,
        }
    }
}

/// Cause and remedy.
pub(super) fn explain(work: Work, kind: ErrorKind, locale: Locale) -> (&'static str, &'static str) {
    without_site(work, kind, locale).unwrap_or_else(|| of_site(kind, locale))
}

/// Where no site is involved.
fn without_site(
    work: Work,
    kind: ErrorKind,
    locale: Locale,
) -> Option<(&'static str, &'static str)> {
    let (zh, en) = match (work, kind) {
        (Work::Program, ErrorKind::Internal) => (
            (
                "程序以错误结束",
                "用 oa-report logs --run {run} 查看程序输出，修正后再次执行启动该任务的那一行",
            ),
            (
                "the program ended with an error",
                "see its output by oa-report logs --run {run}, and run the line that starts it again",
            ),
        ),
        (Work::Program, ErrorKind::Timeout) => (
            (
                "程序运行超过时间限制，已被结束",
                "查看程序卡在何处；若确实需要更久，调大 --timeout",
            ),
            (
                "the program took longer than allowed and was ended",
                "see where it hangs; if it needs longer, raise --timeout",
            ),
        ),
        (Work::Program, ErrorKind::Empty | ErrorKind::Partial) => (
            (
                "程序给出的记录少于下限",
                "核对数据来源当天的数据；若下限不合适，调整 --min-records",
            ),
            (
                "the program brought fewer records than due",
                "check the day's data at their source, or correct --min-records",
            ),
        ),
        (Work::Program, ErrorKind::Shape) => (
            (
                "程序的结果文件没有写出或无法读取",
                "检查程序是否写出了 --result-file 指定的文件",
            ),
            (
                "the program's result file is missing or unreadable",
                "check that it writes the file that --result-file names",
            ),
        ),
        (Work::Backup, ErrorKind::Invalid) => (
            (
                "备份、校验或恢复演练没有通过",
                "按原因修复；仓库里有什么、哪些没有通过，见 oa-backup status 和 oa-backup verify",
            ),
            (
                "a backup, its verification or a rehearsed restore found something wrong",
                "mend the cause; oa-backup status and oa-backup verify show what is in the repository and what is wrong with it",
            ),
        ),
        (Work::Tool, ErrorKind::Invalid) => (
            (
                "两边数据不一致，或有行被隔离",
                "查看该次运行的报告，以及 oa.rejects 中的行与原因",
            ),
            (
                "the two sides differ, or rows were quarantined",
                "look at the run's report, and at the rows in oa.rejects",
            ),
        ),
        _ => return None,
    };
    Some(match locale {
        Locale::Zh => zh,
        Locale::En => en,
    })
}

fn of_site(kind: ErrorKind, locale: Locale) -> (&'static str, &'static str) {
    match (kind, locale) {
        (ErrorKind::Network, Locale::Zh) => (
            "网络连接中断或数据没有收全",
            "检查本机网络；若其他来源正常，多为对方网站故障，等待下次自动采集",
        ),
        (ErrorKind::Dns, Locale::Zh) => (
            "域名无法解析",
            "检查本机 DNS 与网络，或确认对方网址是否变更",
        ),
        (ErrorKind::Tls, Locale::Zh) => ("加密连接失败", "检查对方证书是否过期、本机时间是否准确"),
        (ErrorKind::Timeout, Locale::Zh) => (
            "对方网站太慢，超过时间限制",
            "稍后会自动再采；若持续出现，可调大该来源的 timeout",
        ),
        (ErrorKind::Http5xx, Locale::Zh) => ("对方网站自身故障", "等待对方恢复，下次会自动再采"),
        (ErrorKind::Http429, Locale::Zh) => {
            ("请求过于频繁，被对方限流", "降低采集频率，或稍后再采")
        }
        (ErrorKind::Http4xx, Locale::Zh) => (
            "对方拒绝了请求",
            "确认网址与参数是否变更，必要时更新来源文件",
        ),
        (ErrorKind::Auth, Locale::Zh) => (
            "登录失效或令牌过期",
            "重新登录取得新令牌或 Cookie，更新 .env 后再运行一次",
        ),
        (ErrorKind::Blocked, Locale::Zh) => (
            "对方返回了网页（验证码或维护页）而不是数据",
            "用浏览器打开该网站查看，必要时降低频率",
        ),
        (ErrorKind::Shape, Locale::Zh) => ("对方数据格式变了", "对照原始归档修改来源文件"),
        (ErrorKind::Empty, Locale::Zh) => (
            "对方没有返回任何数据",
            "确认当天是否应有数据，必要时到网站核对",
        ),
        (ErrorKind::Invalid, Locale::Zh) => {
            ("数据不符合校验规则", "查看 oa.rejects 中被拒绝的记录及原因")
        }
        (ErrorKind::Partial, Locale::Zh) => (
            "收到的记录少于对方公布的总数",
            "稍后会自动再采；也可手动运行 oa-crawl run 补齐",
        ),
        (ErrorKind::Db, Locale::Zh) => (
            "数据库拒绝写入",
            "按错误说明处理数据库；收到的内容已在原始归档中",
        ),
        (ErrorKind::Internal, Locale::Zh) => {
            ("本机程序或系统的问题", "查看本机日志、磁盘空间和内存")
        }
        (ErrorKind::Network, Locale::En) => (
            "the connection broke or the data came incomplete",
            "check this machine's network; if other sources work, wait for the next run",
        ),
        (ErrorKind::Dns, Locale::En) => (
            "the site's name could not be resolved",
            "check DNS and network, or whether the address has changed",
        ),
        (ErrorKind::Tls, Locale::En) => (
            "the encrypted connection failed",
            "check the site's certificate and this machine's clock",
        ),
        (ErrorKind::Timeout, Locale::En) => (
            "the site took longer than allowed",
            "the next run tries again; if it goes on, raise this source's timeout",
        ),
        (ErrorKind::Http5xx, Locale::En) => (
            "the site itself failed",
            "wait for the site; the next run tries again",
        ),
        (ErrorKind::Http429, Locale::En) => (
            "the site asks for fewer requests",
            "collect less often, or later",
        ),
        (ErrorKind::Http4xx, Locale::En) => (
            "the site refused the request",
            "check whether address or parameters have changed",
        ),
        (ErrorKind::Auth, Locale::En) => (
            "the login or token has expired",
            "log in again, put the new token into .env and run the task once",
        ),
        (ErrorKind::Blocked, Locale::En) => (
            "a page for people came instead of data (captcha, maintenance)",
            "open the site in a browser; collect less often",
        ),
        (ErrorKind::Shape, Locale::En) => (
            "the data have another shape than before",
            "compare the raw archive with the source file and correct it",
        ),
        (ErrorKind::Empty, Locale::En) => (
            "nothing came where something was due",
            "check on the site whether there are data for that day",
        ),
        (ErrorKind::Invalid, Locale::En) => (
            "the data break the source's rules",
            "look at the rejected records in oa.rejects",
        ),
        (ErrorKind::Partial, Locale::En) => (
            "fewer records came than the site announced",
            "the next run tries again; or run the task by hand",
        ),
        (ErrorKind::Db, Locale::En) => (
            "the database refused the rows",
            "do what the error says; what came is in the raw archive",
        ),
        (ErrorKind::Internal, Locale::En) => (
            "trouble of this program or machine",
            "look at this machine's logs, disk and memory",
        ),
    }
}
