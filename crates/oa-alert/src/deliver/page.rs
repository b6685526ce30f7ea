//! Links to the page that `oa-report serve` gives.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

/// What may stand in a path as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The run's place on the page, else the task's, else the page itself.
pub(crate) fn link(page: &str, run: Option<Uuid>, task: Option<&str>) -> String {
    let page = page.trim_end_matches('/');
    let page = page.strip_suffix("/admin").unwrap_or(page);
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
