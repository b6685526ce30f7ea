//! Which points in time can be restored, as a line with its gaps and the command for each of them; and what proves it.

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::layout::{Frame, status_of};
use crate::queries::backups::Status;
use crate::queries::recovery::Recovery;

const WIDE: f64 = 960.0;

/// From the first point that can be restored until now.
struct Scale {
    from: DateTime<Utc>,
    now: DateTime<Utc>,
}

impl Scale {
    fn x(&self, at: DateTime<Utc>) -> f64 {
        let whole = (self.now - self.from).as_seconds_f64().max(1.0);
        ((at - self.from).as_seconds_f64() / whole * WIDE).clamp(0.0, WIDE)
    }
}

pub(super) fn section(frame: &Frame, status: &Status) -> Markup {
    let lang = frame.lang;
    let recovery = &status.recovery;
    html! {
        section.card aria-labelledby="recovery" {
            div.bar {
                h2 #recovery { (lang.say("可恢复的时间", "What can be restored")) }
                @if let Some(to) = status.restorable_to {
                    p { (lang.say("到 ", "to ")) (frame.clock.time(to)) (lang.say("（", " (")) (frame.clock.relative(to)) (lang.say("）", ")")) }
                }
            }
            @match (recovery.spans.first(), recovery.spans.last()) {
                (Some(first), Some(last)) => {
                    // In steps, so that a page on which nothing happened stays the same.
                    @let now = frame.clock.now - TimeDelta::seconds(frame.clock.now.timestamp() % 300);
                    @let now = now - TimeDelta::microseconds(now.timestamp_subsec_micros().into());
                    @let scale = Scale { from: first.from, now: now.max(last.to) };
                    (line(frame, recovery, &scale, status))
                    (command(frame, recovery))
                }
                _ => { p.empty { (lang.say("没有可恢复的备份", "no backup that can be restored")) } }
            }
            (evidence(frame, status))
        }
    }
}

fn line(frame: &Frame, recovery: &Recovery, scale: &Scale, status: &Status) -> Markup {
    let lang = frame.lang;
    let gaps = recovery.spans.len() - 1;
    let label = lang.say(
        format!(
            "从 {} 到现在，{gaps} 处空缺，{} 个全量备份",
            frame.clock.at(scale.from),
            recovery.fulls.len()
        ),
        format!(
            "from {} until now, {gaps} gaps, {} full backups",
            frame.clock.at(scale.from),
            recovery.fulls.len()
        ),
    );
    let spans: Vec<String> = recovery
        .spans
        .iter()
        .map(|s| format!("{}-{}", s.from.timestamp_millis(), s.to.timestamp_millis()))
        .collect();
    html! {
        svg.recovery viewBox={ "0 0 " (WIDE) " 34" } preserveAspectRatio="none" role="img" aria-label=(label) {
            rect.ground x="0" y="12" width=(WIDE) height="12" {}
            @for s in &recovery.spans {
                @let (from, to) = (scale.x(s.from), scale.x(s.to));
                rect.good x=(format!("{from:.1}")) y="12" width=(format!("{:.1}", (to - from).max(2.0))) height="12" {}
            }
            @for full in &recovery.fulls { rect.full x=(format!("{:.1}", (scale.x(*full) - 1.5).max(0.0))) y="6" width="3" height="24" {} }
            @if let Some(drill) = &status.last_drill {
                @let x = scale.x(drill.target).clamp(5.0, WIDE - 5.0);
                path class=(if drill.ok { "drill" } else { "drill bad" }) d={ "M" (format!("{x:.1}")) " 34l-5-7h10z" } {}
            }
        }
        div.ends aria-hidden="true" { span { (frame.clock.at(scale.from)) } span { (lang.say("现在", "now")) } }
        // Whoever moves it reads the command for that time below. Without the script it does nothing, and is not shown.
        input.pick type="range" min="0" max="1000" value="1000" aria-label=(lang.say("要恢复到的时间", "The time to restore to"))
            data-from=(scale.from.timestamp_millis()) data-until=(scale.now.timestamp_millis()) data-spans=(spans.join(" "));
        ul.legend {
            li { span.key.good {} (lang.say("可恢复", "can be restored")) }
            li { span.key.full {} (lang.say("全量备份", "full backup")) }
            @if gaps > 0 { li { span.key.gap {} (lang.say(format!("空缺 {gaps} 处"), format!("{gaps} gaps"))) } }
            @if status.last_drill.is_some() { li { span.key.drill {} (lang.say("上次演练", "last drill")) } }
        }
    }
}

/// Harmless as it stands: it shows what would be done.
fn command(frame: &Frame, recovery: &Recovery) -> Markup {
    let lang = frame.lang;
    let line = if recovery.physical {
        "oa-restore cluster --to latest --target-dir /var/lib/postgresql/restored --dry-run"
    } else {
        "oa-restore database --to latest --into restored --dry-run"
    };
    html! {
        p.command.to-time {
            code #restore-line { (line) }
            button.copy type="button" data-copy-of="restore-line" { (lang.say("复制", "Copy")) }
            span.faint.snapped hidden { (lang.say("这一刻在空缺中，已取其前最近可恢复的时间", "that time is in a gap; this is the nearest before it")) }
        }
    }
}

fn evidence(frame: &Frame, status: &Status) -> Markup {
    let lang = frame.lang;
    let never = || html! { span.faint { (lang.say("从未", "never")) } };
    let drill = status.last_drill.as_ref();
    let recovered = status.recovery.recovered.as_ref();
    let passed = |ok: bool| {
        let words = if ok {
            lang.say("通过", "passed")
        } else {
            lang.say("失败", "failed")
        };
        status_of(words, if ok { "ok" } else { "error" })
    };
    html! {
        h3 { (lang.say("证据", "Evidence")) }
        dl.facts.evidence {
            div {
                dt { (lang.say("全部读回", "Every byte read back")) }
                dd { @match status.last_verified { Some(at) => { (passed(true)) " " (frame.clock.relative(at)) } None => { (never()) } } }
            }
            div {
                dt { (lang.say("试恢复", "Recovered in a private server")) }
                dd {
                    @match recovered {
                        Some(r) => {
                            (passed(r.error.is_none())) " " (frame.clock.relative(r.tried_at))
                            @if let Some(to) = r.recovered_to { span.since { (lang.say("恢复到 ", "to ")) (frame.clock.time(to)) @if let Some(s) = r.seconds { (lang.say("，用时 ", " in ")) (lang.short(s)) } } }
                            @if let Some(error) = &r.error { span.error { (error) } }
                        }
                        None => { (never()) }
                    }
                }
            }
            div {
                dt { (lang.say("恢复演练", "Restore drill")) }
                dd {
                    @match drill {
                        Some(d) => {
                            (passed(d.ok)) " " (frame.clock.relative(d.started_at))
                            span.since {
                                @if let Some(rto) = d.rto_seconds { "RTO " (lang.short(rto)) }
                                @if let Some(rpo) = d.rpo_seconds { " · RPO " (lang.short(rpo)) }
                            }
                        }
                        None => { (never()) }
                    }
                }
            }
            div {
                dt { (lang.say("迁移证明", "Migration proven")) }
                dd {
                    @match &status.recovery.migration {
                        Some(p) => {
                            @match p.run_id {
                                Some(run) => (frame.link(&format!("/admin/runs/{run}"), &html! { (p.task) })),
                                None => (p.task),
                            }
                            " " (frame.clock.relative(p.at))
                        }
                        None => { (never()) }
                    }
                }
            }
        }
    }
}
