//! The exchanges: daily quotes of futures and options, and warehouse receipts, in the forms that the source files state.

use std::io::Write;

use chrono::{Datelike, NaiveDate};
use serde_json::{Map, Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::thousands;
use crate::Context;
use crate::data::{Rng, VARIETIES, day_number, is_weekend};
use crate::fault::Fault;
use crate::http::Response;

/// The varieties that an exchange lists here.
#[must_use]
pub fn varieties(exchange: &str) -> &'static [&'static str] {
    match exchange {
        "shfe" => &["CU", "AL", "RB", "AU"],
        "ine" => &["SC", "NR"],
        "dce" => &["A", "M", "C", "I"],
        "czce" => &["SR", "CF", "TA"],
        "cffex" => &["IF", "IH", "IM"],
        "gfex" => &["SI", "LC"],
        _ => &[],
    }
}

/// A contract's or an option's day.
#[derive(Debug, Clone, PartialEq)]
pub struct Quote {
    /// Of the variety, in upper case.
    pub variety: &'static str,
    /// Year and month: 2601.
    pub month: String,
    /// Call or put, and the strike price.
    pub option: Option<(char, i64)>,
    /// Open, high, low; nothing when there was no trade.
    pub traded: Option<[i64; 3]>,
    /// Close, settlement, and the settlement before.
    pub close: [i64; 3],
    /// Lots.
    pub volume: u64,
    /// Lots.
    pub open_interest: u64,
}

/// What an exchange publishes for a day, without totals.
#[must_use]
pub fn quotes(seed: u64, exchange: &str, options: bool, day: NaiveDate) -> Vec<Quote> {
    let mut all = Vec::new();
    for variety in varieties(exchange) {
        let number = VARIETIES
            .iter()
            .position(|(c, _, _)| c == variety)
            .unwrap_or(0) as u64;
        let mut rng = Rng::new(seed, &[20 + u64::from(options), number, day_number(day)]);
        for ahead in [1, 3, 5] {
            let months = day.year() * 12 + day.month0().cast_signed() + ahead;
            let month = format!("{:02}{:02}", months / 12 % 100, months % 12 + 1);
            let kinds: Vec<Option<(char, i64)>> = match options {
                false => vec![None],
                true => vec![Some(('C', 4000)), Some(('P', 4000)), Some(('C', 5000))],
            };
            for option in kinds {
                let base = 1000 + rng.below(5000).cast_signed();
                let volume = rng.below(4) * rng.below(90_000);
                let mut near = || base + rng.below(50).cast_signed();
                all.push(Quote {
                    variety,
                    month: month.clone(),
                    option,
                    traded: (volume > 0).then(|| [base, near() + 50, base - 20]),
                    close: [near(), near(), near()],
                    volume,
                    open_interest: rng.below(300_000),
                });
            }
        }
    }
    all
}

/// Receipts of a day: variety, quantity, change.
#[must_use]
pub fn receipts(seed: u64, exchange: &str, day: NaiveDate) -> Vec<(&'static str, u64, i64)> {
    let mut rng = Rng::new(seed, &[23, day_number(day)]);
    let quantity = |rng: &mut Rng| (rng.below(90_000), rng.below(400).cast_signed() - 200);
    let all = varieties(exchange).iter().map(|variety| {
        let (quantity, change) = quantity(&mut rng);
        (*variety, quantity, change)
    });
    all.collect()
}

fn name(variety: &str) -> &'static str {
    VARIETIES
        .iter()
        .find(|(code, _, _)| *code == variety)
        .map_or("", |(_, name, _)| name)
}

pub(super) fn handle(context: &Context<'_>, exchange: &str, rest: &str) -> Response {
    let request = context.request;
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let posted: Value = serde_json::from_str(&body).unwrap_or_default();
    // The day stands somewhere in the request: eight digits.
    let asked = format!("{rest} {body}");
    let digits = asked.split(|c: char| !c.is_ascii_digit());
    let day = digits.filter(|d| d.len() == 8);
    let Some(day) = day
        .filter_map(|d| NaiveDate::parse_from_str(d, "%Y%m%d").ok())
        .next()
    else {
        return Response::not_found();
    };
    if is_weekend(day) {
        return Response::not_found();
    }
    let day = match context.fault {
        Some(Fault::Stale) => day.pred_opt().unwrap_or(day),
        _ => day,
    };
    let seed = context.options.seed;
    let all = |options: bool| match context.fault {
        Some(Fault::Empty) => Vec::new(),
        _ => quotes(seed, exchange, options, day),
    };
    let stock = || receipts(seed, exchange, day);
    match exchange {
        "shfe" | "ine" if rest.ends_with("dailystock.dat") => shfe_stock(&stock()),
        "shfe" | "ine" if rest.contains("/future/") => shfe(&all(false), day),
        "shfe" if rest.contains("/option/") => shfe(&all(true), day),
        "dce" if rest.ends_with("dayQuotes") => dce(&all(posted["tradeType"] == "2")),
        "dce" if rest.ends_with("wbillWeeklyQuotes") => dce_stock(&stock()),
        "czce" if rest.ends_with("FutureDataDaily.txt") => czce(&all(false), day),
        "czce" if rest.ends_with("OptionDataDaily.txt") => czce(&all(true), day),
        "czce" if rest.ends_with("FutureDataWhsheet.xlsx") => czce_stock(&stock(), day),
        "cffex" if rest.ends_with("_1.csv") => cffex(&[all(false), all(true)].concat()),
        "gfex" if rest.ends_with("WebTiDayQuotes/loadList") => {
            gfex(&all(body.contains("trade_type=1")))
        }
        "gfex" if rest.ends_with("WebTdWbillWeeklyQuotes/loadList") => gfex_stock(&stock()),
        _ => Response::not_found(),
    }
}

/// The number at a place, or "" where nothing was traded.
fn or_blank(quote: &Quote, place: usize) -> Value {
    quote
        .traded
        .map_or_else(|| json!(""), |prices| json!(prices[place]))
}

fn shfe(all: &[Quote], day: NaiveDate) -> Response {
    let mut records = Vec::new();
    for quote in all {
        let product = quote.variety.to_lowercase();
        let mut record = json!({
            "PRODUCTGROUPID": format!("{product}  "), "PRODUCTID": format!("{product}_f"), "PRODUCTNAME": name(quote.variety),
            "OPENPRICE": or_blank(quote, 0), "HIGHESTPRICE": or_blank(quote, 1), "LOWESTPRICE": or_blank(quote, 2),
            "CLOSEPRICE": quote.close[0], "SETTLEMENTPRICE": quote.close[1], "PRESETTLEMENTPRICE": quote.close[2],
            "VOLUME": if quote.volume == 0 { json!("") } else { json!(quote.volume) },
            "OPENINTEREST": quote.open_interest, "TURNOVER": quote.volume as f64 / 100.0, "DELIVERYMONTH": quote.month,
        });
        if let (Some((kind, strike)), Value::Object(fields)) = (quote.option, &mut record) {
            let code = format!("{product}{}{kind}{strike}", quote.month);
            fields.remove("DELIVERYMONTH");
            fields.insert("INSTRUMENTID".to_owned(), json!(code));
            fields.insert(
                "OPTIONSTYPE".to_owned(),
                json!(if kind == 'C' { "1" } else { "2" }),
            );
            fields.insert("STRIKEPRICE".to_owned(), json!(strike));
            fields.insert("DELTA".to_owned(), json!(0.5));
            fields.insert("EXECVOLUME".to_owned(), json!(0));
        }
        records.push(record);
    }
    if let Some(first) = records.first().cloned() {
        let with = |key: &str, text: &str| {
            let mut total = first.clone();
            total[key] = json!(text);
            total
        };
        match first.get("INSTRUMENTID") {
            Some(_) => records.push(with("INSTRUMENTID", "小计")),
            None => {
                records.push(with("DELIVERYMONTH", "小计"));
                records.push(with("PRODUCTNAME", "总计"));
                records.push(with("PRODUCTID", "sc_efp"));
            }
        }
    }
    Response::json(
        &json!({ "o_curinstrument": records, "report_date": day.format("%Y%m%d").to_string(), "o_code": "0000" }),
    )
}

fn shfe_stock(stock: &[(&str, u64, i64)]) -> Response {
    let mut records = Vec::new();
    for (variety, quantity, change) in stock {
        let variety = format!("{}$${variety}", name(variety));
        for house in ["甲库$$A", "合计$$Subtotal", "总计$$Total"] {
            records.push(json!({ "VARNAME": variety, "REGNAME": "上海$$Shanghai", "WHABBRNAME": house, "WRTWGHTS": quantity, "WRTCHANGE": change }));
        }
    }
    Response::json(&json!({ "o_cursor": records }))
}

/// As 大商所 and 广期所 write a quote.
fn portal(quote: &Quote) -> Map<String, Value> {
    let text = |n: i64| json!(thousands(n));
    let price = |place: usize| {
        quote
            .traded
            .map_or(json!("-"), |prices| text(prices[place]))
    };
    let fields = json!({
        "variety": name(quote.variety), "varietyOrder": quote.variety.to_lowercase(), "open": price(0), "high": price(1), "low": price(2),
        "close": text(quote.close[0]), "clearPrice": text(quote.close[1]), "lastClear": text(quote.close[2]),
        "volumn": quote.volume, "openInterest": quote.open_interest, "turnover": thousands(quote.volume.cast_signed()),
        "delta": "0.5", "impliedVolatility": "20.1", "matchQtySum": 0,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn code(quote: &Quote) -> String {
    let option = quote
        .option
        .map_or_else(String::new, |(kind, strike)| format!("-{kind}-{strike}"));
    format!("{}{}{option}", quote.variety.to_lowercase(), quote.month)
}

fn with_totals(records: Vec<Map<String, Value>>, blank: &str) -> Vec<Map<String, Value>> {
    let mut all = records;
    for total in ["豆一小计", "总计"] {
        if let Some(mut record) = all.first().cloned() {
            record.insert("variety".to_owned(), json!(total));
            record.insert(blank.to_owned(), json!(""));
            all.push(record);
        }
    }
    all
}

fn dce(all: &[Quote]) -> Response {
    let record = |quote: &Quote| {
        let mut fields = portal(quote);
        fields.insert("contractId".to_owned(), json!(code(quote)));
        fields
    };
    let records = with_totals(all.iter().map(record).collect(), "contractId");
    Response::json(&json!({ "success": true, "data": records }))
}

fn portal_stock(stock: &[(&str, u64, i64)], change_key: &str) -> Vec<Value> {
    let mut records = Vec::new();
    for (variety, quantity, change) in stock {
        for (said, house) in [
            (name(variety).to_owned(), "甲库"),
            (format!("{}小计", name(variety)), ""),
        ] {
            let mut record = json!({ "variety": said, "whAbbr": house, "lastWbillQty": 1, "wbillQty": quantity });
            record[change_key] = json!(change);
            records.push(record);
        }
    }
    records.push(json!({ "variety": "总计", "whAbbr": "", "wbillQty": 1 }));
    records
}

fn dce_stock(stock: &[(&str, u64, i64)]) -> Response {
    Response::json(&json!({ "data": { "entityList": portal_stock(stock, "diff") } }))
}

fn gfex(all: &[Quote]) -> Response {
    let record = |quote: &Quote| {
        let mut fields = portal(quote);
        let month = quote
            .option
            .map_or_else(|| quote.month.clone(), |_| code(quote));
        fields.insert("delivMonth".to_owned(), json!(month));
        fields
    };
    let records = with_totals(all.iter().map(record).collect(), "delivMonth");
    Response::json(&json!({ "code": "0", "data": records }))
}

fn gfex_stock(stock: &[(&str, u64, i64)]) -> Response {
    Response::json(&json!({ "code": "0", "data": portal_stock(stock, "regWbillQty") }))
}

fn czce(all: &[Quote], day: NaiveDate) -> Response {
    let options = all.iter().any(|q| q.option.is_some());
    let more = if options {
        "|DELTA|隐含波动率|行权量"
    } else {
        ""
    };
    let mut text = format!(
        "郑州商品交易所每日行情表({day})\r\n合约代码      |昨结算    |今开盘    |最高价    |最低价    |今收盘    |今结算    |涨跌1 |涨跌2 |成交量(手) |持仓量   |增减量   |成交额(万元){more}\r\n"
    );
    for quote in all {
        let price = |place: usize| {
            quote
                .traded
                .map_or_else(String::new, |p| format!("{}.00", thousands(p[place])))
        };
        let option = quote
            .option
            .map_or_else(String::new, |(kind, strike)| format!("{kind}{strike}"));
        let closes = quote.close.map(|n| format!("{}.00", thousands(n)));
        let more = if options { "|0.5123|20.15|0" } else { "" };
        text.push_str(&format!(
            "{}{}{option}  |{}|{}|{}|{}|{}|{}|1.00|-1.00|{}|{}|-5|{}{more}\r\n",
            quote.variety,
            &quote.month[1..],
            closes[2],
            price(0),
            price(1),
            price(2),
            closes[0],
            closes[1],
            thousands(quote.volume.cast_signed()),
            thousands(quote.open_interest.cast_signed()),
            thousands(quote.volume.cast_signed()),
        ));
    }
    let blanks = if options { "|||" } else { "" };
    for total in ["小计", "总计"] {
        text.push_str(&format!(
            "{total}  |||||||||1,234|5,678|-5|99.00{blanks}\r\n"
        ));
    }
    Response::new(
        200,
        "text/plain",
        encoding_rs::GB18030.encode(&text).0.into_owned(),
    )
}

fn cffex(all: &[Quote]) -> Response {
    let mut text = "合约代码,今开盘,最高价,最低价,成交量,成交金额,持仓量,持仓变化,今收盘,今结算,前结算,涨跌1,涨跌2,Delta\r\n".to_owned();
    for quote in all {
        let price = |place: usize| {
            quote
                .traded
                .map_or_else(String::new, |p| p[place].to_string())
        };
        let (code, delta) = match quote.option {
            Some(_) => (code(quote).to_uppercase(), "0.6860"),
            None => (code(quote).to_uppercase(), "--"),
        };
        let [close, settle, before] = quote.close;
        text.push_str(&format!(
            "{code:<22},{},{},{},{},{}.5,{},-3,{close},{settle},{before},1,-1,{delta}\r\n",
            price(0),
            price(1),
            price(2),
            quote.volume,
            quote.volume,
            quote.open_interest
        ));
    }
    for total in ["小计", "合计"] {
        text.push_str(&format!(
            "{total},,,,54212,5488413.35,101361,-4456,,,,,,\r\n"
        ));
    }
    Response::new(
        200,
        "text/csv",
        encoding_rs::GB18030.encode(&text).0.into_owned(),
    )
}

fn czce_stock(stock: &[(&str, u64, i64)], day: NaiveDate) -> Response {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
    for (variety, quantity, change) in stock {
        // 白糖SR, but PTA.
        let chinese = name(variety);
        let said = match chinese.is_ascii() {
            true => chinese.to_owned(),
            false => format!("{chinese}{variety}"),
        };
        rows.push(row(&[&format!("品种：{said}    单位：张    日期：{day}")]));
        rows.push(row(&[
            "仓库编号",
            "仓库简称",
            "仓单数量",
            "当日增减",
            "有效预报",
        ]));
        for house in ["0301", "小计", "总计"] {
            rows.push(row(&[
                house,
                "甲库",
                &quantity.to_string(),
                &change.to_string(),
                "0",
            ]));
        }
        rows.push(Vec::new());
    }
    match workbook(&rows) {
        Ok(body) => Response::new(
            200,
            "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            body,
        ),
        Err(e) => Response::new(500, "text/plain", e.to_string()),
    }
}

/// An xlsx file with one sheet; what is a number becomes one.
fn workbook(rows: &[Vec<String>]) -> zip::result::ZipResult<Vec<u8>> {
    const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    const OFFICE: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006";
    let mut sheet = format!("<worksheet xmlns=\"{MAIN}\"><sheetData>");
    for (number, row) in rows.iter().enumerate() {
        let number = number + 1;
        sheet.push_str(&format!("<row r=\"{number}\">"));
        for (cell, column) in row.iter().zip('A'..='Z') {
            sheet.push_str(&match cell.parse::<i64>() {
                Ok(value) if !cell.starts_with('0') || cell == "0" => {
                    format!("<c r=\"{column}{number}\"><v>{value}</v></c>")
                }
                _ => {
                    format!("<c r=\"{column}{number}\" t=\"inlineStr\"><is><t>{cell}</t></is></c>")
                }
            });
        }
        sheet.push_str("</row>");
    }
    sheet.push_str("</sheetData></worksheet>");
    let relation = |kind: &str, target: &str| {
        format!(
            "<Relationships xmlns=\"{PACKAGE}/relationships\"><Relationship Id=\"r1\" Type=\"{OFFICE}/{kind}\" Target=\"{target}\"/></Relationships>"
        )
    };
    let parts = [
        (
            "[Content_Types].xml",
            format!(
                "<Types xmlns=\"{PACKAGE}/content-types\"><Default Extension=\"xml\" ContentType=\"application/xml\"/></Types>"
            ),
        ),
        ("_rels/.rels", relation("officeDocument", "xl/workbook.xml")),
        (
            "xl/workbook.xml",
            format!(
                "<workbook xmlns=\"{MAIN}\" xmlns:r=\"{OFFICE}\"><sheets><sheet name=\"Sheet1\" sheetId=\"1\" r:id=\"r1\"/></sheets></workbook>"
            ),
        ),
        (
            "xl/_rels/workbook.xml.rels",
            relation("worksheet", "worksheets/sheet1.xml"),
        ),
        ("xl/worksheets/sheet1.xml", sheet),
    ];
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in parts {
        zip.start_file(name, SimpleFileOptions::default())?;
        zip.write_all(text.as_bytes())?;
    }
    Ok(zip.finish()?.into_inner())
}
