//! Every way of asking and reading that docs/new-source.md describes, by the example that stands there, with good and bad answers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::io::Write;
use std::process::Command;

use common::Done;
use common::site::{Answer, Site};
use serde_json::{Value, json};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/new-source.md");

/// The example with this title.
fn example(title: &str) -> String {
    let docs = fs::read_to_string(DOCS).unwrap();
    let begin = docs.find(&format!("```toml\n# {title}\n")).expect(title);
    let text = &docs[begin + 8..];
    text[..text.find("```").unwrap()].to_owned()
}

fn source(example: &str, base: &str) -> String {
    let fetch = match example.contains("[fetch]") {
        true => String::new(),
        false => format!("[fetch]\nkind = \"http\"\nbase = \"{base}\"\npath = \"/\"\n"),
    };
    let answer = match example.contains("[answer") {
        true => "",
        false => "[answer]\nrecords = \"/list\"\n",
    };
    let fields = match example.contains("[[fields]]") {
        true => "",
        false => {
            "[[fields]]\ncolumn = \"code\"\nfrom = \"code\"\ntype = \"text\"\nrequired = true\n[[fields]]\ncolumn = \"close\"\nfrom = \"close\"\ntype = \"number\"\nnull = [\"--\"]\n"
        }
    };
    format!(
        "name = \"form\"\ntitle = \"形式\"\nprovider = \"own\"\nschedule = \"0 9 * * *\"\nmax_rejected = 0.6\n{fetch}{answer}{}\n[store]\ntable = \"form\"\nunique = [\"code\"]\nkey = [\"code\"]\n{fields}",
        example.replace("https://quotes.example.com", base)
    )
}

/// `oa-crawl try` of an example for 1 December 2025.
fn attempt(text: &str, body: Option<&[u8]>) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("form.toml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
    command
        .args(["try", "--format", "json"])
        .arg(&file)
        .current_dir(dir.path())
        .env_remove("OA_CONFIG");
    if text.contains("{date") && body.is_none() {
        command.args(["--date", "2025-12-01"]);
    }
    if let Some(body) = body {
        fs::write(dir.path().join("body"), body).unwrap();
        command.args(["--body", "body", "--date", "2025-12-01"]);
    }
    let done: Done = command.output().unwrap().into();
    let tried = serde_json::from_str(&done.stdout);
    tried.unwrap_or_else(|_| json!({ "problem": done.stderr, "status": "refused" }))
}

fn read(title: &str, body: impl AsRef<[u8]>) -> Value {
    attempt(
        &source(&example(title), "https://quotes.example.com"),
        Some(body.as_ref()),
    )
}

#[track_caller]
fn is_row(tried: &Value, rows: u64, first: &Value) {
    assert_eq!(tried["typed"]["rows"], rows, "{tried}");
    assert_eq!(&tried["typed"]["first"], first, "{tried}");
}

#[track_caller]
fn is_problem(tried: &Value, says: &str) {
    assert_ne!(tried["status"], "success", "{tried}");
    assert!(
        tried["problem"].as_str().unwrap_or_default().contains(says),
        "{says}: {tried}"
    );
}

#[track_caller]
fn is_rejected(tried: &Value, says: &str) {
    assert!(
        tried["rejected"].to_string().contains(says),
        "{says}: {tried}"
    );
}

fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, content) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A workbook with one sheet of this XML.
fn xlsx(sheet: &str) -> Vec<u8> {
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
    let main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    let rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    let package = "http://schemas.openxmlformats.org/package/2006";
    let types = format!(
        "{head}<Types xmlns=\"{package}/content-types\"><Default Extension=\"xml\" ContentType=\"application/xml\"/></Types>"
    );
    let rels = format!(
        "{head}<Relationships xmlns=\"{package}/relationships\"><Relationship Id=\"r1\" Type=\"{rel}/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>"
    );
    let book = format!(
        "{head}<workbook xmlns=\"{main}\" xmlns:r=\"{rel}\"><sheets><sheet name=\"仓单\" sheetId=\"1\" r:id=\"r1\"/></sheets></workbook>"
    );
    let of_book = format!(
        "{head}<Relationships xmlns=\"{package}/relationships\"><Relationship Id=\"r1\" Type=\"{rel}/worksheet\" Target=\"worksheets/sheet1.xml\"/></Relationships>"
    );
    let sheet = format!("{head}<worksheet xmlns=\"{main}\">{sheet}</worksheet>");
    zip_of(&[
        ("[Content_Types].xml", types.as_bytes()),
        ("_rels/.rels", rels.as_bytes()),
        ("xl/workbook.xml", book.as_bytes()),
        ("xl/_rels/workbook.xml.rels", of_book.as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
    ])
}

fn text_cell(at: &str, text: &str) -> String {
    format!("<c r=\"{at}\" t=\"inlineStr\"><is><t>{text}</t></is></c>")
}

fn gbk(text: &str) -> Vec<u8> {
    encoding_rs::GB18030.encode(text).0.into_owned()
}

#[test]
fn text_in_columns_is_read_by_its_headings() {
    let text = "郑商所日行情(2025-12-01)\r\n品种月份 |今收盘    |Delta\r\nSR601    |5,430.00  |--\r\n小计     |     |\r\nSR605    |--|--\r\nCF601|1|2|3|4\r\n说明：x\r\n";
    let tried = read("text in columns", gbk(text));
    is_row(&tried, 2, &json!({"code": "SR601", "close": 5430.0}));
    is_rejected(&tried, "a list of 5 values, which does not fit the columns");
    assert_eq!(tried["rejected"].as_array().unwrap().len(), 1);
    is_problem(&read("text in columns", text), "bytes that are not GBK");
    let cut = "日行情(2025-12-01)\n品种月份|今收盘\nSR601|5\nSR6";
    is_problem(&read("text in columns", gbk(cut)), "it was cut short");
    let other_day = text.replace("12-01", "11-28");
    is_problem(
        &read("text in columns", gbk(&other_day)),
        "another day (2025-11-28)",
    );
    is_problem(
        &read("text in columns", gbk("日行情(20251201)\n合约|收盘\nA|1")),
        "no row with the headings",
    );
    is_problem(
        &read("text in columns", "<html><title>404</title>"),
        "a web page titled \"404\"",
    );
    is_problem(&read("text in columns", ""), "another day");
    let wide = format!("日行情(20251201)\n{}", "|".repeat(1_000_000));
    is_problem(&read("text in columns", gbk(&wide)), "1000001 cells");
}

#[test]
fn members_of_a_zip_file_are_read_and_bombs_are_not() {
    let title = "a member of a zip file";
    let good = zip_of(&[
        ("20251128_1.csv", b"x"),
        ("20251201_1.csv", b"a,b\nIF2401,\"3,439.8\"\n"),
    ]);
    is_row(
        &read(title, &good),
        1,
        &json!({"code": "IF2401", "close": 3439.8}),
    );
    is_problem(
        &read(title, zip_of(&[("20251128_1.csv", b"x")])),
        "without the member 20251201_*.csv",
    );
    is_problem(&read(title, &good[..good.len() - 30]), "no zip file");
    is_problem(&read(title, b"<html>"), "no zip file");
    is_problem(&read(title, b""), "an empty body");
    let bomb = vec![b'x'; 65 << 20];
    is_problem(
        &read(title, zip_of(&[("20251201_1.csv", &bomb)])),
        "more than 67108864 bytes",
    );
}

/// How a record of a number in an xls file begins.
const CELL: [u8; 4] = [0x7e, 0x02, 0x0a, 0x00];

#[test]
fn blocks_of_a_spreadsheet_are_read() {
    let title = "a spreadsheet with blocks";
    let rows = |more: &str| {
        format!(
            "<sheetData><row r=\"1\">{}</row><row r=\"2\">{}{}</row><row r=\"3\">{}<c r=\"B3\"><v>12</v></c></row><row r=\"4\"><c r=\"B4\"><v>30.0</v></c></row><row r=\"5\">{}<c r=\"B5\"><v>42</v></c></row>{more}</sheetData>",
            text_cell("A1", "品种：白糖SR"),
            text_cell("A2", "仓 库"),
            text_cell("B2", "仓单数量"),
            text_cell("A3", "甲库"),
            text_cell("A5", "小计"),
        )
    };
    let unique = |text: String| {
        text.replace("unique = [\"code\"]", "unique = [\"code\", \"close\"]")
            .replace("type = \"integer\"", "type = \"integer\"\nrequired = true")
    };
    let text = unique(source(&example(title), "https://quotes.example.com"));
    let read = |body: &[u8]| attempt(&text, Some(body));
    let first = json!({"code": "SR", "house": "甲库", "close": 12});
    is_row(&read(&xlsx(&rows(""))), 2, &first);
    // Merged cells, and a formula that failed.
    let failed = format!(
        "<row r=\"6\">{}<c r=\"B6\" t=\"e\"><v>#REF!</v></c></row>",
        text_cell("A6", "乙库")
    );
    let merged = format!(
        "{}<mergeCells count=\"1\"><mergeCell ref=\"A3:A4\"/></mergeCells>",
        rows(&failed)
    );
    let tried = read(&xlsx(&merged));
    is_row(&tried, 2, &first);
    is_rejected(&tried, "#REF!");
    // One cell in the last corner of the sheet.
    let corner = rows("<row r=\"1048576\"><c r=\"XFD1048576\"><v>1</v></c></row>");
    is_row(&read(&xlsx(&corner)), 2, &first);
    // A page that calls itself a spreadsheet.
    let page = gbk(
        "<html><meta charset=gb2312><table><tr><td colspan=2>品种：白糖SR</td></tr><tr><td>仓库</td><td>仓单数量</td></tr><tr><td rowspan=2>甲库</td><td>12</td></tr><tr><td>30</td></tr></table>",
    );
    is_row(&read(&page), 2, &first);
    // As the exchange sends them.
    is_row(&read(include_bytes!("data/receipts.xls")), 3, &first);
    let bad = xlsx(&rows(""));
    is_problem(&read(&bad[..bad.len() / 2]), "cannot be read");
    is_problem(
        &read(&include_bytes!("data/receipts.xls")[..3000]),
        "the answer has",
    );
    is_problem(
        &read(&include_bytes!("data/receipts.xls")[..4100]),
        "cannot be read (it breaks off",
    );
    is_problem(
        &read(b"code,close"),
        "no spreadsheet; it begins: code,close",
    );
    is_problem(&read(b""), "an empty body");
    is_problem(&read(&xlsx("<sheetData/>")), "no rows");
    let bomb = " ".repeat(65 << 20);
    is_problem(&read(&xlsx(&bomb)), "67108864 bytes, unpacked");
    // One cell in the last corner of an xls, whose reader makes room for all that are before it.
    let mut corner = include_bytes!("data/receipts.xls").to_vec();
    let cell = corner.windows(4).rposition(|some| some == CELL).unwrap();
    corner[cell + 4..cell + 8].copy_from_slice(&[0xff, 0xff, 0xff, 0]);
    is_problem(&read(&corner), "MB of memory");
    // One long text in many cells.
    let long = text_cell("A3", &"仓".repeat(100_000));
    let merged = "<mergeCells count=\"1\"><mergeCell ref=\"A3:Z500\"/></mergeCells>";
    let many: String = (4..500)
        .map(|n| format!("<row r=\"{n}\"><c r=\"AA{n}\"><v>1</v></c></row>"))
        .collect();
    let repeated = format!("<sheetData><row r=\"3\">{long}</row>{many}</sheetData>{merged}");
    is_problem(&read(&xlsx(&repeated)), "bytes of text");
    // A page that takes hours.
    let nested = "<table><tr><td>x".repeat(100_000);
    is_problem(&read(nested.as_bytes()), "within each other");
}

#[test]
fn tables_are_read_by_place_and_by_headings() {
    let page = "<table class=quotes><tr><td>品种<td>合约<td>收盘价<tr><td rowspan=2>铜<td>cu2601<td>1,000<tr><td>cu2602<td>--</table>";
    is_row(
        &read("a table by headings", page),
        2,
        &json!({"code": "cu2601", "close": 1000}),
    );
    is_problem(
        &read("a table by headings", page.replace("合约", "代码")),
        "no row with the headings",
    );
    is_problem(
        &read("a table by headings", page.trim_end_matches("</table>")),
        "it was cut short",
    );
    is_problem(
        &read("a table by headings", "<title>验证</title>"),
        "without any table",
    );
    let page = "<table><thead><tr><th>合约<th>收盘价</thead><tbody><tr><td>cu2601<td>5</table>";
    is_row(
        &read("a table by place", page),
        1,
        &json!({"code": "cu2601", "close": 5}),
    );
    is_problem(
        &read("a table by place", page.replace("收盘价", "开盘价")),
        "the headings",
    );
}

#[test]
fn xml_scripts_lists_keys_and_any_text_are_read() {
    let first = json!({"code": "RB2601", "close": 3.5});
    let rss = "<?xml version='1.0' encoding='gbk'?><rss><channel><title>铜</title><item id='RB2601'><quote><close>3.5</close></quote></item></channel></rss>";
    is_row(&read("XML", gbk(rss)), 1, &first);
    is_problem(
        &read("XML", &rss[..rss.len() - 20]),
        "XML that is cut short",
    );
    is_problem(&read("XML", ""), "an empty body");

    for script in [
        "/**/quotes({\"list\": [{\"code\": \"RB2601\", \"close\": 3.5}]});",
        "<script>var quotes = {\"list\": [{\"code\": \"RB2601\", \"close\": 3.5}]};</script>",
    ] {
        is_row(&read("JSON in a script", script), 1, &first);
    }
    is_problem(
        &read("JSON in a script", "quotes({\"list\": ["),
        "cut short",
    );
    is_problem(&read("JSON in a script", "other({})"), "that quotes gets");
    is_problem(
        &read(
            "an answer that says whether it is one",
            r#"{"code": 401, "msg": "token 已过期", "data": null}"#,
        ),
        "the site refused (token 已过期)",
    );
    is_problem(
        &read("JSON in a script", "<html><title>登录</title>"),
        "a web page titled",
    );

    let lists = r#"{"data": [["RB2601", 0, 3.5], ["HC"]]}"#;
    let tried = read("records as lists", lists);
    is_row(&tried, 1, &first);
    is_rejected(&tried, "a list of 1 values");
    let keyed = r#"{"data": {"RB2601": {"px": {"close": 3.5}}, "HC": {}}}"#;
    is_row(&read("records by their key", keyed), 2, &first);
    is_problem(
        &read("records by their key", r#"{"data": [1]}"#),
        "no object at /data",
    );

    is_row(&read("any text", "hq: RB2601=3.5;HC2601=4;"), 2, &first);
    is_problem(
        &read("any text", "nothing here"),
        "nothing that matches record",
    );
    is_problem(&read("any text", " "), "an empty body");
}

#[test]
fn values_are_read_as_sites_write_them() {
    let body = r#"{"list": [
        {"name": "铜$$COPPER", "price": "(1,234.5)", "time": 1764550200000},
        {"name": "铝$$ALUMINIUM", "price": "1.2万", "time": "1764550200000"},
        {"name": "锌$$ZINC", "price": "--", "time": 1764550200000},
        {"name": "铅", "price": 1, "time": 1764550200000},
        {"name": "镍$$NICKEL", "price": 1, "time": 1764550200}]}"#;
    let tried = read("values", body);
    is_row(
        &tried,
        3,
        &json!({"code": "铜", "close": -1234.5, "day": "2025-12-01"}),
    );
    is_rejected(&tried, "of which nothing matches");
    is_rejected(&tried, "as milliseconds since 1970 (epoch) is no time");
}

/// A site with five records that answers `pages` by what was asked for.
fn pages(answer: impl Fn(&str, &[Value]) -> Answer + Send + Sync + 'static) -> Site {
    let all: Vec<Value> = (0..5)
        .map(|n| json!({"code": format!("C{n}"), "close": n}))
        .collect();
    Site::start(move |asked| answer(&format!("{} {}", asked.path, asked.body), &all))
}

fn number(asked: &str, name: &str) -> Option<usize> {
    let rest = asked.split(name).nth(1)?;
    let digits: String = rest
        .trim_start_matches(['=', '"', ':'])
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

#[test]
fn pages_are_read_in_every_way_to_their_end() {
    let site = pages(|asked, all| {
        let from = 2 * number(asked, "page").unwrap();
        let records = &all[from.min(5)..(from + 2).min(5)];
        Answer::json(json!({ "list": records }).to_string())
    });
    let tried = attempt(&source(&example("pages by number"), &site.url), None);
    is_row(&tried, 5, &json!({"code": "C0", "close": 0}));
    assert!(
        site.asked()[0].path.contains("page=0&limit=2"),
        "{:?}",
        site.asked()
    );

    let site = pages(|asked, all| {
        let from = number(asked, "start").unwrap().min(5);
        assert_eq!(number(asked, "limit"), Some(2), "{asked}");
        Answer::json(json!({ "list": &all[from..(from + 2).min(5)] }).to_string())
    });
    let post = format!(
        "{}\n[fetch]\nkind = \"http\"\nbase = \"{}\"\npath = \"/\"\njson = {{ day = 1 }}\n",
        example("pages by offset"),
        site.url
    );
    is_row(
        &attempt(&source(&post, &site.url), None),
        5,
        &json!({"code": "C0", "close": 0}),
    );
    assert!(
        site.asked().iter().all(|a| a.body.contains("\"day\":1")),
        "{:?}",
        site.asked()
    );

    let site = pages(|asked, all| {
        let from = number(asked, "after").unwrap_or(0);
        let next = (from + 2 < 5).then_some(from + 2);
        Answer::json(json!({ "list": &all[from..(from + 2).min(5)], "next": next }).to_string())
    });
    is_row(
        &attempt(&source(&example("pages by a cursor"), &site.url), None),
        5,
        &json!({"code": "C0", "close": 0}),
    );
    assert_eq!(site.asked().len(), 4, "one more by try itself");

    let site = pages(|asked, all| {
        let from = number(asked, "from").unwrap_or(0);
        let mut answer = Answer::json(json!({ "list": &all[from..(from + 2).min(5)] }).to_string());
        if from + 2 < 5 {
            let link = format!("</?from={}>; rel=\"next\"", from + 2);
            // Each in a header of its own, as some sites send them.
            answer
                .headers
                .push(("link", "</>; rel=\"first\"".to_owned()));
            answer.headers.push(("link", link));
        }
        answer
    });
    is_row(
        &attempt(
            &source(&example("pages by the next page's address"), &site.url),
            None,
        ),
        5,
        &json!({"code": "C0", "close": 0}),
    );
}

#[test]
fn pages_that_never_end_or_break_off_are_no_success() {
    let text = example("pages by a cursor");
    // The same cursor for ever, a new one for ever, and another site.
    let again = pages(|_, all| Answer::json(json!({ "list": all, "next": "x" }).to_string()));
    is_problem(
        &attempt(&source(&text, &again.url), None),
        "a next page that was read before (x)",
    );
    let endless = pages(|asked, _| {
        let n = number(asked, "after").unwrap_or(0);
        Answer::json(
            json!({ "list": [{"code": format!("N{n}"), "close": 1}], "next": n + 1 }).to_string(),
        )
    });
    let few = text.replace("id = ", "max_pages = 4\nid = ");
    is_problem(
        &attempt(&source(&few, &endless.url), None),
        "stopped after 4 pages",
    );
    let repeats = pages(|asked, all| {
        let n = number(asked, "after").unwrap_or(0);
        Answer::json(json!({ "list": all, "next": n + 1 }).to_string())
    });
    is_problem(
        &attempt(&source(&text, &repeats.url), None),
        "nothing that was not on an earlier page",
    );
    let expires = pages(|asked, all| match number(asked, "after") {
        None => Answer::json(json!({ "list": all, "next": 1 }).to_string()),
        Some(_) => Answer::status(401),
    });
    is_problem(&attempt(&source(&text, &expires.url), None), "HTTP 401");
    let away = pages(|_, all| {
        Answer::json(json!({ "list": all, "next": "http://192.0.2.1/x" }).to_string())
    });
    let address = text.replace("cursor = \"after\"\n", "");
    is_problem(
        &attempt(&source(&address, &away.url), None),
        "which is not at http://127.0.0.1",
    );
}

#[test]
fn days_are_asked_for_in_the_form_of_the_site() {
    let site = Site::start(|_| Answer::json(r#"{"list": [{"code": "A", "close": 1}]}"#));
    is_row(
        &attempt(&source(&example("days in other forms"), &site.url), None),
        1,
        &json!({"code": "A", "close": 1}),
    );
    assert_eq!(
        site.asked()[0].path,
        "/data/202512/kx20251201.dat?since=20251128"
    );
    is_row(
        &attempt(&source(&example("a JSON body"), &site.url), None),
        1,
        &json!({"code": "A", "close": 1}),
    );
    let asked = site.asked().pop().unwrap();
    assert!(
        asked.head.starts_with("post /dailystat")
            && asked.head.contains("content-type: application/json"),
        "{asked:?}"
    );
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        body,
        json!({"tradeDate": "20251201", "tradeType": "1", "varieties": ["all"]})
    );
    // Only the month is named: today's page would be stored under any day.
    let month = source(&example("a JSON body").replace("%Y%m%d", "%Y%m"), &site.url);
    is_problem(
        &attempt(
            &month.replace("schedule =", "shows = \"any day\"\nschedule ="),
            None,
        ),
        "{date} is nowhere",
    );
}

#[test]
fn rules_that_contradict_each_other_refuse_the_file() {
    let csv = || source(&example("text in columns"), "http://x");
    for (text, says) in [
        (
            csv().replace("charset = \"gbk\"", "charset = \"gkb\""),
            "charset \"gkb\"",
        ),
        (
            csv().replace("separator = \"|\"", "separator = \"\""),
            "separator",
        ),
        (
            csv().replace("skip = [\"^说明\"]", "skip = [\"(\"]"),
            "skip in [answer.rows]",
        ),
        (csv().replace("skip = [", "fill_down = ["), "fill_down"),
        (
            csv().replace("skip = [\"^说明\"]", "skip_rows = 1"),
            "skip_rows",
        ),
        (
            csv().replace("[answer.delimited]", "[answer.sheet]\n[answer.delimited]"),
            "needs one of records",
        ),
        (
            csv().replace("is = [", "pattern = \"(\" #"),
            "pattern in [[exclude]]",
        ),
        (csv().replace("(\\\\S+)", "\\\\S+"), "one group"),
        (
            source(
                &example("any text")
                    .replace("?<code>", "?:")
                    .replace("?<close>", "?:"),
                "http://x",
            ),
            "named groups",
        ),
        (
            source(&example("pages by offset"), "http://x"),
            "place = \"body\"",
        ),
        (
            source(
                &example("pages by number").replace("page = ", "offset = \"o\"\npage = "),
                "http://x",
            ),
            "needs one of page",
        ),
        (
            source(
                &example("pages by a cursor").replace("next = \"/next\"", ""),
                "http://x",
            ),
            "needs one of page",
        ),
        (
            source(
                &example("values").replace("epoch = \"ms\"", "epoch = \"us\""),
                "http://x",
            ),
            "us",
        ),
        (
            source(
                &example("XML").replace("rss/channel", "/rss/channel"),
                "http://x",
            ),
            "records in [answer.xml]",
        ),
        (
            source(
                &example("a JSON body").replace("{date:%Y%m%d}", "{date:%Q}"),
                "http://x",
            ),
            "json in [fetch] has the unknown placeholder {date:%Q}",
        ),
    ] {
        is_problem(&attempt(&text, Some(b"")), says);
    }
}
