//! The API as other programs see it: names, meanings, paging, errors, on a real server and a real database.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{Site, TOKEN};

#[test]
fn health_tells_of_each_task_under_the_names_of_the_plan() {
    let site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    let reply = serving.get("/admin/crawler/health");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let health = reply.json();
    println!("{}", serde_json::to_string_pretty(&health).unwrap());
    assert!(health["timestamp"].is_string());
    let page = serving.get("/admin/");
    assert_eq!(page.status, 200, "{}", page.text());
}
