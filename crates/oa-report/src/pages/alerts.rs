//! Open incidents, and alerts.

use std::sync::Arc;

use maud::{Markup, html};

use super::layout::{self, Frame, icon};
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::params::Params;
use crate::queries::alerts::{self, AlertEntry};

pub(crate) async fn page(app: &Arc<App>, frame: &Frame, params: &Params) -> Result<Markup, Answer> {
    let lang = frame.lang;
    let before = params.uuid("before");
    let wording = frame.wording();
    let (open, (alerts, next)) = app
        .ask(move |tx| {
            Ok((
                alerts::open(tx, &wording)?,
                alerts::list(tx, &wording, before, 50)?,
            ))
        })
        .await?;
    let body = html! {
        div.head { h1 { (lang.say("告警", "Alerts")) } }
        section.card aria-labelledby="open" {
            h2 #open { (lang.say("未恢复的故障", "Open incidents")) " " span.faint { (open.len()) } }
            @if open.is_empty() { p.empty.good { (icon("ok")) " " (lang.say("没有", "None")) } }
            @else { ol.todo { @for t in &open { (super::todo::incident(frame, t, "alerts")) } } }
            @if !open.is_empty() && frame.form.is_none() {
                p.faint { (lang.say("在页面上认领需要令牌（oa-report token）；也可以执行 oa-alert ack。", "To acknowledge here you need a token (oa-report token); you can also use oa-alert ack.")) }
            }
        }
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
                            @for d in a.deliveries.iter().filter(|d| d.state == "failed" || d.error.is_some() && d.state != "sent") {
                                " " span.error title=(d.error.clone().unwrap_or_default()) { (d.channel) }
                            }
                        }
                    }
                }
            }
        }
    }
}
