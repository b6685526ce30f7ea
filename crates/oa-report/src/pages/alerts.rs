//! Open incidents, and alerts.

use std::sync::Arc;

use maud::{Markup, html};
use oa_core::app::config::Channel;

use super::act;
use super::layout::{self, Frame, icon};
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::params::Params;
use crate::lang::Lang;
use crate::queries::alerts::{self, AlertEntry, HeldSilence};

pub(crate) async fn page(app: &Arc<App>, frame: &Frame, params: &Params) -> Result<Markup, Answer> {
    let lang = frame.lang;
    let before = params.uuid("before");
    let wording = frame.wording();
    let (open, (alerts, next), silences) = app
        .ask(move |tx| {
            Ok((
                alerts::open(tx, &wording)?,
                alerts::list(tx, &wording, before, 50)?,
                alerts::silences(tx)?,
            ))
        })
        .await?;
    let channels = &app.config.alert.channels;
    let body = html! {
        div.head { h1 { (lang.say("告警", "Alerts")) } }
        section.card aria-labelledby="open" {
            h2 #open { (lang.say("未恢复的故障", "Open incidents")) " " span.faint { (open.len()) } }
            @if open.is_empty() { p.empty.good { (icon("ok")) " " (lang.say("没有", "None")) } }
            @else { ol.todo { @for t in &open { (super::todo::incident(frame, t)) } } }
            @if !open.is_empty() && frame.form.is_none() {
                p.faint { (lang.say("在页面上认领需要令牌（oa-report token）；也可以执行 oa-alert ack。", "To acknowledge here you need a token (oa-report token); you can also use oa-alert ack.")) }
            }
        }
        (act::asked(frame, None))
        @if !silences.is_empty() { (of_silences(frame, &silences)) }
        @if !channels.is_empty() { (of_channels(frame, channels)) }
        section.card aria-labelledby="sent" {
            h2 #sent { (lang.say("发出的告警", "Alerts")) }
            @if alerts.is_empty() { p.empty { (lang.say("还没有告警", "No alert yet")) } } @else { (table(frame, &alerts)) }
            nav.pages aria-label=(lang.say("翻页", "Pages")) {
                @if before.is_some() { a rel="first" href=(frame.with(&[("before", None)])) { (lang.say("最新", "Newest")) } }
                @if let Some(next) = next { a rel="next" href=(frame.with(&[("before", Some(&next.to_string()))])) { (lang.say("更早", "Older")) } }
            }
        }
    };
    Ok(layout::page(frame, lang.say("告警", "Alerts"), &body))
}

/// What people are not notified of, and how much that was.
fn of_silences(frame: &Frame, silences: &[HeldSilence]) -> Markup {
    let lang = frame.lang;
    let of = |s: &HeldSilence| {
        let parts = [&s.task, &s.rule, &s.host, &s.fingerprint];
        parts
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(" · ")
    };
    html! {
        section.card aria-labelledby="silences" {
            h2 #silences { (lang.say("静默与维护", "Silences and maintenance")) " " span.faint { (silences.len()) } }
            table {
                thead { tr {
                    th scope="col" { (lang.say("静默的", "Silent")) }
                    th scope="col" { (lang.say("时间", "When")) }
                    th.num scope="col" { (lang.say("已隐藏", "Hidden")) }
                    th scope="col" { (lang.say("谁", "By")) }
                    th scope="col" { (lang.say("操作", "Do")) }
                } }
                tbody {
                    @for s in silences {
                        tr {
                            th.message scope="row" { (of(s)) }
                            td {
                                @if s.starts_at > frame.clock.now { (lang.say("从 ", "from ")) (frame.clock.time(s.starts_at)) " " }
                                (lang.say("至 ", "until ")) (frame.clock.time(s.until))
                                @if let Some(daily) = &s.daily { (lang.say("，", ", ")) (weekdays(lang, s.weekdays.as_deref())) " " (daily) }
                            }
                            td.num data-label=(lang.say("已隐藏", "Hidden")) { (s.hidden) }
                            td.message { (s.by) @if !s.reason.is_empty() { " · " (s.reason) } }
                            td { (act::end_silence(frame, s.id)) }
                        }
                    }
                }
            }
        }
    }
}

/// On which days of the week.
fn weekdays(lang: Lang, days: Option<&[i32]>) -> String {
    let Some(days) = days else {
        return lang.say("每天", "daily").to_owned();
    };
    let names = lang.say(
        ["周一", "周二", "周三", "周四", "周五", "周六", "周日"],
        ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"],
    );
    let named = days
        .iter()
        .filter_map(|day| names.get(usize::try_from(day - 1).ok()?).copied());
    named.collect::<Vec<&str>>().join(lang.say("、", ", "))
}

fn of_channels(frame: &Frame, channels: &[Channel]) -> Markup {
    let lang = frame.lang;
    html! {
        section.card aria-labelledby="channels" {
            h2 #channels { (lang.say("渠道", "Channels")) }
            ul.requests {
                @for channel in channels { li { span { (channel.name) } (act::test_channel(frame, &channel.name)) } }
            }
        }
    }
}

fn table(frame: &Frame, alerts: &[AlertEntry]) -> Markup {
    let lang = frame.lang;
    let sign = |a: &AlertEntry| {
        if a.kind == "problem" {
            a.severity.clone()
        } else {
            a.kind.clone()
        }
    };
    let delivered = |a: &AlertEntry| {
        if a.silenced {
            return lang.say("静默", "silenced").to_owned();
        }
        let sent = a.deliveries.iter().filter(|d| d.state == "sent").count();
        if a.follows.is_some() && a.deliveries.is_empty() {
            return lang.say("不单独发送", "not by itself").to_owned();
        }
        match (a.settled, a.deliveries.len()) {
            (true, 0) => lang.say("无渠道", "no channel").to_owned(),
            (false, 0) => lang.say("待发", "waiting").to_owned(),
            (_, all) => lang.say(
                format!("{sent}/{all} 渠道"),
                format!("{sent} of {all} channels"),
            ),
        }
    };
    html! {
        table.alerts {
            thead { tr {
                th scope="col" { (lang.say("时间", "Time")) }
                th scope="col" { (lang.say("内容", "Alert")) }
                th scope="col" { (lang.say("送达", "Delivered")) }
            } }
            tbody {
                @for a in alerts {
                    tr {
                        th.when scope="row" { (frame.clock.time(a.created_at)) }
                        td.message {
                            details {
                                summary { (icon(&sign(a))) " " (a.title) }
                                pre { (a.body) }
                                @if let Some(run) = a.run_id { p { a href=(frame.url(&format!("/admin/runs/{run}"))) { (lang.say("查看这次运行", "See the run")) } } }
                            }
                        }
                        td data-label=(lang.say("送达", "Delivered")) {
                            (delivered(a))
                            @if let Some(root) = a.follows_title.as_ref().filter(|_| a.deliveries.is_empty() && !a.silenced) {
                                p.undelivered { (lang.say("由此引起：", "it follows from: ")) (root) }
                            }
                            @for d in a.deliveries.iter().filter(|d| d.state != "sent" && (d.state == "failed" || d.error.is_some())) {
                                p.undelivered {
                                    (layout::status_of(&d.channel, if d.state == "failed" { "error" } else { "warning" }))
                                    " " (lang.say(format!("已试 {} 次", d.tries), format!("tried {} times", d.tries)))
                                    @if let Some(error) = &d.error { span.error.full { (error) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
