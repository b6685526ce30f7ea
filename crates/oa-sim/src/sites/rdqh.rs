//! 容大期货: an HTML table, in GBK as old sites are.

use super::{table, today};
use crate::Context;
use crate::data::{Rng, VARIETIES, day_number};
use crate::fault::Fault;
use crate::http::Response;

pub fn handle(context: &Context<'_>, rest: &str) -> Response {
    if !rest.is_empty() && rest != "indicators" {
        return Response::not_found();
    }
    let mut rng = Rng::new(context.options.seed, &[9, day_number(today())]);
    let varieties = if context.fault == Some(&Fault::Empty) {
        &[][..]
    } else {
        &VARIETIES[..50]
    };
    let rows: Vec<Vec<String>> = varieties
        .iter()
        .map(|(code, _, _)| {
            vec![
                (*code).to_owned(),
                rng.decimal(0, 100).to_string(),
                rng.decimal(-50, 50).to_string(),
                rng.decimal(0, 100).to_string(),
                rng.decimal(500, 9000).to_string(),
            ]
        })
        .collect();
    let page = table("技术指标", &["品种", "RSI", "MACD", "KDJ", "MA"], &rows)
        .replace("charset=\"utf-8\"", "charset=\"gbk\"");
    Response::new(
        200,
        "text/html; charset=gbk",
        encoding_rs::GB18030.encode(&page).0.into_owned(),
    )
}
