//! 融达期货: tables behind a cookie that a person got by logging in; without it, to the login page.

use super::{table, thousands, today};
use crate::Context;
use crate::data::{Rng, VARIETIES, day_number};
use crate::fault::Fault;
use crate::http::Response;

pub fn handle(context: &Context<'_>, rest: &str) -> Response {
    let logged_in = context
        .request
        .header("cookie")
        .is_some_and(|c| c.contains("rongda_session=sim"));
    if rest == "login" {
        return Response::html("<!doctype html><title>登录</title><form>请登录</form>");
    }
    if !logged_in || context.fault == Some(&Fault::ExpiredToken) {
        return Response::redirect("/rongda/login");
    }
    let mut rng = Rng::new(
        context.options.seed,
        &[8, day_number(today()), rest.len() as u64],
    );
    let varieties = if context.fault == Some(&Fault::Empty) {
        &[][..]
    } else {
        &VARIETIES[..40]
    };
    match rest {
        "analysis_futures_markets/market_structure" => {
            let kinds = ["contango", "升水", "正向", "back", "贴水", "反向"];
            let rows: Vec<Vec<String>> = varieties
                .iter()
                .map(|(_, name, _)| {
                    vec![
                        (*name).to_owned(),
                        (*rng.pick(&kinds)).to_owned(),
                        rng.decimal(0, 10).to_string(),
                        rng.decimal(-300, 300).to_string(),
                    ]
                })
                .collect();
            Response::html(table("期限结构", &["品种", "结构", "强度", "价差"], &rows))
        }
        "analysis_futures_markets/positions" => {
            let rows: Vec<Vec<String>> = varieties
                .iter()
                .map(|(_, name, _)| {
                    let (long, short) = (
                        i64::try_from(rng.below(200_000)).unwrap_or_default(),
                        i64::try_from(rng.below(200_000)).unwrap_or_default(),
                    );
                    vec![
                        (*name).to_owned(),
                        thousands(long),
                        thousands(short),
                        thousands(long - short),
                    ]
                })
                .collect();
            Response::html(table(
                "机构持仓",
                &["品种", "多单", "空单", "净持仓"],
                &rows,
            ))
        }
        _ => Response::not_found(),
    }
}
