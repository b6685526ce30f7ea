//! A button does the same as its signed link, under the name of whoever pressed it.

use chrono::Utc;
use oa_core::app::config::Locale;
use oa_core::base::links::{Link, LinkAction, LinkError, LinkKey};
use oa_core::journal::answers::{self, Acted};
use oa_wording::Wording;

use super::database::Database;

/// Somebody has pressed a button.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Press {
    /// The signed link behind it, where the platform tells.
    pub(super) signed: Option<String>,
    /// The message, by the platform's id, and the name of the action on it.
    pub(super) message: String,
    pub(super) action: String,
    /// Who, as the platform names people.
    pub(super) by: String,
}

/// How what is said is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// It is done.
    Done,
    /// There was nothing to do.
    Notice,
    /// It is not done.
    Refused,
}

/// What is said to whoever has pressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// How it is meant.
    pub(super) tone: Tone,
    /// One line.
    pub(super) text: String,
}

/// Who does what is pressed.
pub(super) struct Desk {
    pub(super) database: Database,
    pub(super) key: LinkKey,
    /// Channels whose messages these can be.
    pub(super) channels: Vec<String>,
    pub(super) wording: Wording,
}

impl Desk {
    /// Does what a button says.
    pub(super) fn press(&mut self, press: &Press) -> Said {
        let signed = match &press.signed {
            Some(signed) => signed.clone(),
            None => match self.signed(press) {
                Ok(signed) => signed,
                Err(said) => return said,
            },
        };
        let link = match self.verify(&signed) {
            Ok(link) => link,
            Err(said) => return said,
        };
        let by = format!("{} ({})", press.by, link.channel);
        match self
            .database
            .with(|client| answers::act(client, &link, &by))
        {
            Ok(acted) => {
                tracing::info!(
                    "{} of alert {} by {by}: {acted:?}",
                    link.action.as_str(),
                    link.alert
                );
                self.outcome(&link, &acted)
            }
            Err(why) => self.down(&by, &why),
        }
    }

    /// A platform that tells nothing behind a button shows what was said on the message, for everybody, in place of what has become of
    /// the incident. A while later the message shows that again.
    pub(super) fn show_again(&mut self, press: &Press) {
        if press.signed.is_some() {
            return;
        }
        let (channels, message) = (&self.channels, &press.message);
        let noted = self.database.with(|client| {
            client.execute(
                r#"UPDATE oa.cards SET shown = shown || '{"said": true}', ended_at = NULL, next_try_at = now() + interval '6 seconds'
                   WHERE channel = ANY($1) AND message = $2"#,
                &[channels, message],
            )
        });
        if let Err(e) = noted {
            tracing::debug!("{e}");
        }
    }

    fn down(&self, by: &str, why: &str) -> Said {
        tracing::warn!("what {by} pressed was not done: {why}");
        self.say(
            Tone::Refused,
            "数据库暂时无法访问，没有执行；按钮仍然有效，请稍后再按",
            "The database does not answer, and nothing was done; the button still works: press it again later",
        )
    }

    /// The link behind a button, as it was noted when the message was sent.
    fn signed(&mut self, press: &Press) -> Result<String, Said> {
        let (channels, message, action) = (&self.channels, &press.message, &press.action);
        let found = self.database.with(|client| {
            client.query_opt(
                // Another machine may have another channel of the same application.
                "SELECT a->>'signed' FROM oa.cards c, jsonb_array_elements(c.content->'actions') a
                 WHERE c.channel IN (SELECT unnest($1::text[]) UNION SELECT name FROM oa.channel_routes WHERE seen_at > now() - interval '3 days')
                   AND c.message = $2 AND a->>'what' = $3 LIMIT 1",
                &[channels, message, action],
            )
        });
        match found {
            Ok(Some(row)) => {
                let kept: Option<String> = row.get(0);
                let signed = kept.and_then(|kept| self.key.sign_again(&kept));
                Ok(signed.unwrap_or_default())
            }
            Ok(None) => Err(self.say(
                Tone::Refused,
                "没有这条消息的记录：它还在那台机器的暂存中（恢复连接后再按），或已被清理",
                "There is no record of this message: it waits on its machine (press again when that is connected), or is gone",
            )),
            Err(why) => Err(self.down(&press.by, &why)),
        }
    }

    fn verify(&mut self, signed: &str) -> Result<Link, Said> {
        let link = self.key.verify(signed, Utc::now()).map_err(|e| match e {
            LinkError::Forged => self.say(
                Tone::Refused,
                "这个按钮不是本服务签发的，没有执行",
                "This button is not of this service; nothing was done",
            ),
            LinkError::Expired => self.say(
                Tone::Refused,
                "按钮已过期：请在网页上操作，或等下一次提醒",
                "The button has expired: use the page, or the next reminder",
            ),
        })?;
        if self.channels.contains(&link.channel) {
            return Ok(link);
        }
        // Whoever listens for an application hears what is pressed on the messages of all machines.
        let another = self.database.with(|client| {
            client.query_opt(
                "SELECT FROM oa.channel_routes WHERE name = $1 AND seen_at > now() - interval '3 days' LIMIT 1",
                &[&link.channel],
            )
        });
        match another {
            Ok(Some(_)) => Ok(link),
            Ok(None) => Err(self.say(
                Tone::Refused,
                "发出这条消息的通道已从配置中移除，按钮不再有效",
                "The channel of this message was removed from the configuration, and with it its buttons",
            )),
            Err(why) => Err(self.down(&link.channel, &why)),
        }
    }

    fn outcome(&self, link: &Link, acted: &Acted) -> Said {
        match acted {
            Acted::Done => match link.action {
                LinkAction::Acknowledge => self.say(
                    Tone::Done,
                    "已认领：恢复之前不再提醒，恢复时会通知",
                    "Acknowledged: it is not repeated until it is resolved, and that is reported",
                ),
                LinkAction::Silence => self.say(
                    Tone::Done,
                    "已静默 2 小时；提前结束用 oa-alert silence --end",
                    "Silenced for 2 hours; end it early with: oa-alert silence --end",
                ),
                LinkAction::Run => self.say(
                    Tone::Done,
                    "已登记：一分钟内由 oa-crawl run --due 重跑，结果照常通知",
                    "Noted: oa-crawl run --due runs it within a minute, and reports as ever",
                ),
                LinkAction::Log => self.say(
                    Tone::Notice,
                    "请在网页上查看",
                    "Look at the page",
                ),
            },
            Acted::Used(at) => {
                let at = self.wording.at(*at);
                self.say(
                    Tone::Notice,
                    &format!("这个按钮已在 {at} 用过，每个按钮只能用一次"),
                    &format!("This button was used at {at}; each works once"),
                )
            }
            Acted::Over => self.say(
                Tone::Notice,
                "这次故障已经恢复，无需操作",
                "The incident is resolved; there is nothing to do",
            ),
            Acted::NothingToRun => self.say(
                Tone::Refused,
                "这个任务不是数据源，或已停用，无法从这里重跑",
                "This task is no source, or is off, and cannot be run from here",
            ),
            Acted::Unknown => self.say(
                Tone::Refused,
                "没有这条告警的记录：它还在那台机器的暂存中（恢复连接后再按），或已被清理",
                "There is no record of this alert: it waits in the spool of its machine (press again when that is connected), or is gone",
            ),
        }
    }

    fn say(&self, tone: Tone, zh: &str, en: &str) -> Said {
        let text = match self.wording.locale {
            Locale::Zh => zh,
            Locale::En => en,
        };
        Said {
            tone,
            text: text.to_owned(),
        }
    }
}
