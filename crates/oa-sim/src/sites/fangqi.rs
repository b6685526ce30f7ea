//! 方期看盘: JSON without login; `code` 200 means success.

use chrono::NaiveDate;
use serde_json::{Value, json};

use super::day;
use crate::Context;
use crate::data::{Rng, VARIETIES, day_number};
use crate::fault::Fault;
use crate::http::Response;

/// Ratings of a day and session, up and down.
#[must_use]
pub fn ratings(seed: u64, date: NaiveDate, opening: &str) -> (Vec<Value>, Vec<Value>) {
    let mut rng = Rng::new(
        seed,
        &[
            4,
            day_number(date),
            opening.len() as u64,
            u64::from(opening.contains('夜')),
        ],
    );
    let mut lists = (Vec::new(), Vec::new());
    for (code, name, sector) in VARIETIES {
        let stars = "★".repeat(usize::try_from(1 + rng.below(3)).unwrap_or(1));
        match rng.below(5) {
            0 => lists.0.push(json!({ "breeds": sector, "smallbreeds": name, "smallbreedscode": code, "ratingforecast": format!("多{stars}") })),
            1 => lists.1.push(json!({ "breeds": sector, "smallbreeds": name, "smallbreedscode": code.to_lowercase(), "ratingforecast": format!("空{stars}") })),
            _ => {}
        }
    }
    lists
}

pub(crate) fn handle(context: &Context<'_>, rest: &str) -> Response {
    if rest != "pc/jiandaoyun/ratingprediction/list" {
        return Response::not_found();
    }
    let error =
        |code: i64, why: &str| Response::json(&json!({ "code": code, "msg": why, "data": null }));
    if !context
        .request
        .header("referer")
        .is_some_and(|r| r.contains("founderfu.com") || r.contains("/fangqi"))
    {
        return error(403, "非法请求来源");
    }
    let opening = context.request.param("openingtype");
    if !["早盘提示", "夜盘提示"].contains(&opening) {
        return error(500, "openingtype 参数错误");
    }
    let date = day(context, "date");
    let (mut many, mut short) = ratings(context.options.seed, date, opening);
    let counts = (many.len(), short.len());
    match context.fault {
        Some(Fault::ExpiredToken) => return error(401, "未授权"),
        Some(Fault::Empty) => (many, short) = (Vec::new(), Vec::new()),
        Some(Fault::Fewer) => many.truncate(counts.0.saturating_sub(2)),
        _ => {}
    }
    let counts = if context.fault == Some(&Fault::Empty) {
        (0, 0)
    } else {
        counts
    };
    Response::json(&json!({ "code": 200, "msg": "成功", "data": {
        "openingtype": opening, "date": date.to_string(), "manyCount": counts.0, "shortCount": counts.1, "manyList": many, "shortList": short,
    } }))
}
