//! 智汇期讯: JSON behind a token; HTTP 200 whatever happens.

use chrono::{Datelike, NaiveDate};
use serde_json::{Value, json};

use super::day;
use crate::Context;
use crate::data::{Rng, VARIETIES, day_number, is_weekend, percent};
use crate::fault::Fault;
use crate::http::Response;

const VIEWS: [&str; 3] = ["偏多", "中性", "偏空"];
const INSTITUTIONS: [&str; 12] = [
    "格林大华",
    "佛山金控",
    "融达期货",
    "新纪元",
    "东方财富",
    "国泰君安",
    "东证期货",
    "方正中期",
    "中信建投",
    "银河期货",
    "永安期货",
    "南华期货",
];
const PHRASES: [&str; 10] = [
    "供需双弱，库存继续去化，短期震荡运行",
    "宏观情绪回暖，资金推动盘面反弹",
    "成本支撑仍在，下方空间有限",
    "需求旺季不旺，高位回落风险加大",
    "关注美联储议息会议与国内政策预期",
    "铁水产量环比回落，炉料承压",
    "进口到港增加，基差走弱",
    "产区天气炒作升温，波动率抬升",
    "仓单注册量上升，近月压力显现",
    "上下游博弈加剧，等待方向选择",
];

/// The varieties' views of a day: 73 to 75 on a weekday, 5 to 22 at a weekend.
#[must_use]
pub fn full_view(seed: u64, date: NaiveDate) -> Vec<Value> {
    let mut rng = Rng::new(seed, &[1, day_number(date)]);
    let count = if is_weekend(date) {
        5 + rng.below(18)
    } else {
        73 + rng.below(3)
    };
    let skip = rng.below(VARIETIES.len() as u64);
    let n = VARIETIES.len() as u64;
    (0..count)
        .map(|i| {
            let (code, name, _) = VARIETIES[usize::try_from((skip + i) % n).unwrap_or_default()];
            let (up, flat, down) = (rng.below(40), rng.below(30), rng.below(30));
            let sum = (up + flat + down).max(1);
            let up = if up + flat + down == 0 { 1 } else { up };
            let (most, rate) = if up >= flat && up >= down { ("偏多", up) } else if down > flat { ("偏空", down) } else { ("中性", flat) };
            json!({
                "varietyCode": code, "varietyName": name,
                "excessiveRate": percent(up, sum), "neutralRate": percent(flat, sum), "emptyRate": percent(down, sum),
                "excessiveNum": up, "neutralNum": flat, "emptyNum": down, "sum": sum,
                "morePort": most, "moreRate": percent(rate, sum),
            })
        })
        .collect()
}

/// How many research reports a day has: 2,400 to 2,899 on a weekday, 20 to 79 at a weekend; 2,434 for seed 1 on 2025-12-01, as
/// on the real one.
#[must_use]
pub fn report_count(seed: u64, date: NaiveDate) -> u64 {
    if seed == 1 && NaiveDate::from_ymd_opt(2025, 12, 1) == Some(date) {
        return 2434;
    }
    let mut rng = Rng::new(seed, &[2, day_number(date)]);
    if is_weekend(date) {
        20 + rng.below(60)
    } else {
        2400 + rng.below(500)
    }
}

/// Report number `index` of a day, counted from the oldest. On days divisible by five, number 7 has no variety code.
#[must_use]
pub fn report(seed: u64, date: NaiveDate, index: u64) -> Value {
    let mut rng = Rng::new(seed, &[3, day_number(date), index]);
    let (code, name, _) = *rng.pick(&VARIETIES);
    let code = if index == 7 && date.day().is_multiple_of(5) {
        ""
    } else {
        code
    };
    let institution = rng.below(INSTITUTIONS.len() as u64);
    let logic: Vec<&str> = (0..3 + rng.below(6)).map(|_| *rng.pick(&PHRASES)).collect();
    let data = if rng.below(3) == 0 {
        String::new()
    } else {
        format!(
            "社会库存 {} 万吨，环比 {}%",
            rng.decimal(50, 900),
            rng.decimal(-5, 5)
        )
    };
    let risk = if rng.below(2) == 0 {
        ""
    } else {
        "宏观政策超预期变化"
    };
    json!({
        "id": day_number(date) * 10_000 + index, "publishDate": date.to_string(),
        "varietyCode": code, "variety": name,
        "institutionId": 60 + institution, "institutionName": INSTITUTIONS[usize::try_from(institution).unwrap_or_default()],
        "viewPort": rng.pick(&VIEWS), "tradeLogic": format!("{}。", logic.join("。\n")), "relatedData": data, "riskFactor": risk,
        "link": format!("http://mp.weixin.qq.com/s?__biz={:016x}&mid={}&idx={}&sn={:032x}", rng.next(), rng.below(1 << 32), 1 + rng.below(5), rng.next()),
    })
}

pub(crate) fn handle(context: &Context<'_>, rest: &str) -> Response {
    let refuse =
        |why: &str| Response::json(&json!({ "success": false, "result": null, "errDesc": why }));
    if context.fault == Some(&Fault::ExpiredToken)
        || context.request.header("authorization") != Some(context.options.zhihui_token.as_str())
    {
        return refuse("登录已过期，请重新登录");
    }
    let done = |result: Value| {
        Response::json(&json!({ "success": true, "result": result, "errDesc": "" }))
    };
    let empty = context.fault == Some(&Fault::Empty);
    match rest {
        "api/report/overallView" => {
            let mut list = if empty {
                Vec::new()
            } else {
                real_view(context)
                    .unwrap_or_else(|| full_view(context.options.seed, day(context, "publishDate")))
            };
            match context.fault {
                Some(Fault::Fewer) => list.truncate(5),
                Some(Fault::Duplicates) => list.extend_from_within(..list.len().min(1)),
                _ => {}
            }
            done(Value::from(list))
        }
        "api/report/viewPoint/listPage" => done(page(context, empty)),
        "api/public/variety/list" => {
            let mut list: Vec<Value> = VARIETIES.iter().enumerate().map(|(i, (code, name, sector))| {
                json!({ "varietyId": i + 1, "varietyCode": code, "varietyName": name, "sectorId": sector.len(), "sectorName": sector, "pinyin": code.to_lowercase(), "firstPinyin": &code[..1] })
            }).collect();
            match context.fault {
                Some(Fault::Empty) => list.clear(),
                Some(Fault::Fewer) => list.truncate(30),
                _ => {}
            }
            // Two groups, and the first variety in both.
            let rest = list.split_off(list.len() / 2);
            let again: Vec<Value> = list.first().cloned().into_iter().chain(rest).collect();
            done(json!([
                { "sectorId": 1, "sectorName": "一", "varietyList": list },
                { "sectorId": 2, "sectorName": "二", "varietyList": again },
            ]))
        }
        _ => Response::not_found(),
    }
}

fn page(context: &Context<'_>, empty: bool) -> Value {
    let date = day(context, "startDate");
    let real = real_reports(context);
    let mut total = real.as_ref().map_or_else(
        || report_count(context.options.seed, date),
        |list| list.len() as u64,
    );
    if empty {
        return json!({ "records": [], "total": 0 });
    }
    if context.fault == Some(&Fault::Grow) {
        total += (context.applied + 1).min(10) * 3;
    }
    if context.fault == Some(&Fault::Shrink) {
        total = total.saturating_sub(context.applied * 150);
    }
    let cap = if let Some(Fault::Cap(n)) = context.fault {
        *n
    } else {
        100
    };
    let limit = context
        .request
        .number("limit")
        .unwrap_or(10)
        .clamp(1, cap.max(1));
    let number = if context.fault == Some(&Fault::RepeatPage) {
        1
    } else {
        context.request.number("page").unwrap_or(1).max(1)
    };
    // Newest first.
    let mut first = (number - 1) * limit;
    if context.fault == Some(&Fault::Duplicates) && number > 1 {
        first = first.saturating_sub(5);
    }
    let mut end = (first + limit).min(total);
    if context.fault == Some(&Fault::Fewer) {
        // The last ones never come, whatever the total says.
        end = end.min(total.saturating_sub(7));
    }
    let one = |i: u64| match &real {
        Some(list) => list
            .get(usize::try_from(i).unwrap_or_default())
            .cloned()
            .unwrap_or(Value::Null),
        None => report(context.options.seed, date, total - 1 - i),
    };
    json!({ "records": (first..end.max(first)).map(one).collect::<Vec<Value>>(), "total": total })
}

/// A real collected day in the API's shape, if the folder has it.
fn real_view(context: &Context<'_>) -> Option<Vec<Value>> {
    let list = real_file(context, day(context, "publishDate"), "多空全景")?;
    Some(list.as_array()?.iter().map(|r| {
        json!({
            "varietyCode": r["variety_code"], "varietyName": r["variety_name"], "excessiveRate": r["excessive_ratio"], "neutralRate": r["neutral_ratio"],
            "emptyRate": r["empty_ratio"], "excessiveNum": r["excessive_num"], "neutralNum": r["neutral_num"], "emptyNum": r["empty_num"],
            "sum": r["sum"], "morePort": r["more_port"], "moreRate": r["more_rate"],
        })
    }).collect())
}

fn real_reports(context: &Context<'_>) -> Option<Vec<Value>> {
    let file = real_file(context, day(context, "startDate"), "研报淘金_全部")?;
    Some(file["reports"].as_array()?.iter().map(|r| {
        json!({
            "id": r["report_id"], "publishDate": r["publish_date"], "varietyCode": r["variety_code"], "variety": r["variety"], "institutionId": r["institution_id"],
            "institutionName": r["institution_name"], "viewPort": r["view_port"], "tradeLogic": r["trade_logic"], "relatedData": r["related_data"],
            "riskFactor": r["risk_factor"], "link": r["link"],
        })
    }).collect())
}

fn real_file(context: &Context<'_>, date: NaiveDate, kind: &str) -> Option<Value> {
    let path = context
        .options
        .days
        .as_ref()?
        .join(format!("{}_{kind}.json", date.format("%Y%m%d")));
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_size_of_real_ones_and_their_numbers_add_up() {
        let mut date = NaiveDate::from_ymd_opt(2025, 12, 1).unwrap();
        for _ in 0..14 {
            let list = full_view(1, date);
            let range = if is_weekend(date) { 5..=22 } else { 73..=75 };
            assert!(range.contains(&list.len()), "{date}: {}", list.len());
            for r in &list {
                let n = |k: &str| r[k].as_u64().unwrap();
                assert_eq!(
                    n("excessiveNum") + n("neutralNum") + n("emptyNum"),
                    n("sum"),
                    "{r}"
                );
            }
            let mut codes: Vec<&str> = list
                .iter()
                .map(|r| r["varietyCode"].as_str().unwrap())
                .collect();
            codes.sort_unstable();
            codes.dedup();
            assert_eq!(codes.len(), list.len());
            assert_eq!(full_view(1, date), list, "the same every time");
            date = date.succ_opt().unwrap();
        }
        assert_eq!(
            report_count(1, NaiveDate::from_ymd_opt(2025, 12, 1).unwrap()),
            2434
        );
    }
}
