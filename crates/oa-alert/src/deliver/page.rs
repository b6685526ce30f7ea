//! Links to the page that `oa-report serve` gives.

use chrono::{TimeDelta, Utc};
use oa_core::app::config::Locale;
use oa_core::base::links::{Link, LinkAction};
use oa_core::journal::answers;
use oa_core::model::event::Alert;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use super::Rendering;
use crate::render::Action;

/// So long the links of a message work.
const LINKS_WORK: TimeDelta = TimeDelta::hours(24);

/// What may stand in a path as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The page's address without what comes after the server's own root.
fn root(page: &str) -> &str {
    let page = page.trim_end_matches('/');
    page.strip_suffix("/admin").unwrap_or(page)
}

/// What can be done about an alert from its message in one channel; each works once.
pub(super) fn actions(alert: &Alert, channel: &str, rendering: &Rendering<'_>) -> Vec<Action> {
    let Some(key) = rendering.links else {
        return Vec::new();
    };
    let address = |action: LinkAction| {
        let link = Link {
            action,
            alert: alert.id,
            channel: channel.to_owned(),
            expires: Utc::now() + LINKS_WORK,
        };
        let signed = key.sign(&link)?;
        let word = match (action, rendering.wording.locale) {
            (LinkAction::Acknowledge, Locale::Zh) => "认领",
            (LinkAction::Silence, Locale::Zh) => "静默 2 小时",
            (LinkAction::Run, Locale::Zh) => "重跑",
            (LinkAction::Log, Locale::Zh) => "看日志",
            (LinkAction::Acknowledge, Locale::En) => "Acknowledge",
            (LinkAction::Silence, Locale::En) => "Silence for 2 h",
            (LinkAction::Run, Locale::En) => "Run again",
            (LinkAction::Log, Locale::En) => "Show the run",
        };
        let url = rendering
            .page
            .map(|page| format!("{}/act/{signed}", root(page)));
        Some(Action {
            what: action.as_str().to_owned(),
            word: word.to_owned(),
            signed,
            url,
        })
    };
    let offered = answers::offered(alert).into_iter();
    offered.filter_map(address).collect()
}

/// The run's place on the page, else the task's, else the page itself.
pub(crate) fn link(page: &str, run: Option<Uuid>, task: Option<&str>) -> String {
    let page = root(page);
    match (run, task) {
        (Some(run), _) => format!("{page}/admin/runs/{run}"),
        (None, Some(task)) => format!("{page}/admin/tasks/{}", utf8_percent_encode(task, PATH)),
        (None, None) => format!("{page}/admin/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_a_task_or_the_page_itself() {
        let page = "https://oa.example.com/ops/";
        assert_eq!(
            link(page, Some(Uuid::nil()), Some("a")),
            "https://oa.example.com/ops/admin/runs/00000000-0000-0000-0000-000000000000"
        );
        assert_eq!(
            link(page, None, Some("a-b.c/中)")),
            "https://oa.example.com/ops/admin/tasks/a-b.c%2F%E4%B8%AD%29"
        );
        assert_eq!(link(page, None, None), "https://oa.example.com/ops/admin/");
        assert_eq!(
            link("https://oa.example.com/admin/", None, None),
            "https://oa.example.com/admin/"
        );
    }
}
