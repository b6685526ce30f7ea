//! The six sites and the exchanges, each with the shapes that `docs` and the source files state.

pub mod exchanges;
pub mod fangqi;
mod jiaoyikecha;
mod openvlab;
mod rdqh;
mod rongda;
pub mod zhihui;

use chrono::{NaiveDate, Utc};

use crate::Context;
use crate::fault::Fault;
use crate::http::Response;

pub(crate) fn handle(context: &Context<'_>, site: &str, rest: &str) -> Response {
    match site {
        "zhihui" => zhihui::handle(context, rest),
        "fangqi" => fangqi::handle(context, rest),
        "jiaoyikecha" => jiaoyikecha::handle(context, rest),
        "openvlab" => openvlab::handle(context, rest),
        "rongda" => rongda::handle(context, rest),
        "rdqh" => rdqh::handle(context, rest),
        "shfe" | "ine" | "dce" | "czce" | "cffex" | "gfex" => {
            exchanges::handle(context, site, rest)
        }
        _ => Response::not_found(),
    }
}

/// The day that a parameter names, else today in Shanghai; the day before under the `stale` fault.
fn day(context: &Context<'_>, parameter: &str) -> NaiveDate {
    let asked = context
        .request
        .param(parameter)
        .parse()
        .unwrap_or_else(|_| today());
    if context.fault == Some(&Fault::Stale) {
        asked.pred_opt().unwrap_or(asked)
    } else {
        asked
    }
}

fn today() -> NaiveDate {
    (Utc::now() + chrono::TimeDelta::hours(8)).date_naive()
}

/// An HTML table.
fn table(title: &str, headings: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &[String]| {
        cells
            .iter()
            .map(|c| format!("<{tag}>{c}</{tag}>"))
            .collect::<String>()
    };
    let head: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    let body: String = rows
        .iter()
        .map(|r| format!("<tr>{}</tr>\n", cells("td", r)))
        .collect();
    format!(
        "<!doctype html><html><head><meta charset=\"utf-8\"><title>{title}</title></head><body><h1>{title}</h1>\n<table><thead><tr>{}</tr></thead><tbody>\n{body}</tbody></table></body></html>",
        cells("th", &head)
    )
}

/// `1234567` as `1,234,567`.
fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    if number < 0 { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_grouped() {
        assert_eq!(super::thousands(-1_234_567), "-1,234,567");
        assert_eq!(super::thousands(123), "123");
    }
}
