//! The simulator does over real HTTP what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use oa_sim::{Options, Sim, sites::zhihui};
use serde_json::{Value, json};

const VIEW: &str = "/zhihui/api/report/overallView?publishDate=2025-12-01&sectorId=&morePort=";
const LIST: &str = "/zhihui/api/report/viewPoint/listPage?startDate=2025-12-01&endDate=2025-12-01";

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(5)))
        .build()
        .into()
}

fn get(sim: &Sim, path: &str) -> Result<(u16, Vec<u8>), ureq::Error> {
    let mut answer = agent()
        .get(format!("{}{path}", sim.base()))
        .header("authorization", "sim-token")
        .call()?;
    Ok((answer.status().as_u16(), answer.body_mut().read_to_vec()?))
}

fn get_json(sim: &Sim, path: &str) -> Value {
    serde_json::from_slice(&get(sim, path).unwrap().1).unwrap()
}

fn post(sim: &Sim, path: &str, body: &Value) -> Value {
    let mut answer = agent()
        .post(format!("{}{path}", sim.base()))
        .send_json(body)
        .unwrap();
    answer.body_mut().read_json().unwrap()
}

fn faulty(plan: &str) -> Sim {
    let sim = Sim::start(Options::default()).unwrap();
    sim.fault(plan).unwrap();
    sim
}

#[test]
fn a_day_of_reports_has_25_pages_of_different_records() {
    let sim = Sim::start(Options::default()).unwrap();
    let mut ids = std::collections::HashSet::new();
    for page in 1..=25 {
        let answer = get_json(&sim, &format!("{LIST}&page={page}&limit=100"));
        assert_eq!(answer["result"]["total"], 2434);
        for record in answer["result"]["records"].as_array().unwrap() {
            assert!(ids.insert(record["id"].as_u64().unwrap()));
        }
    }
    assert_eq!(ids.len(), 2434);
    assert_eq!(
        get_json(&sim, VIEW)["result"],
        Value::from(zhihui::full_view(1, "2025-12-01".parse().unwrap()))
    );
    assert_eq!(sim.requests().len(), 26);
}

#[test]
fn a_wrong_token_is_refused_with_status_200() {
    let sim = Sim::start(Options::default()).unwrap();
    let mut answer = agent().get(format!("{}{VIEW}", sim.base())).call().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.body_mut().read_json::<Value>().unwrap()["success"],
        false
    );
}

#[test]
fn faults_heal_when_the_plan_says_so() {
    let sim = faulty("/zhihui/api/report/overallView: 500 x2 then ok");
    assert_eq!(
        [
            get(&sim, VIEW).unwrap().0,
            get(&sim, VIEW).unwrap().0,
            get(&sim, VIEW).unwrap().0
        ],
        [500, 500, 200]
    );
}

#[test]
fn faults_of_the_transport_break_the_answer() {
    for plan in ["truncate", "bad-gzip", "gzip-cut", "long-length", "reset"] {
        let sim = faulty(&format!("/zhihui: {plan}"));
        assert!(get(&sim, VIEW).is_err(), "{plan}");
    }
    for (plan, status) in [
        ("redirect-login", 302),
        ("redirect-loop", 302),
        ("soft-block", 200),
        ("429 retry-after=2", 429),
    ] {
        let sim = faulty(&format!("/zhihui: {plan}"));
        let (found, body) = get(&sim, VIEW).unwrap();
        assert_eq!(found, status, "{plan}");
        assert!(serde_json::from_slice::<Value>(&body).is_err(), "{plan}");
    }
    let sim = faulty("/zhihui: gbk");
    assert!(String::from_utf8(get(&sim, VIEW).unwrap().1).is_err());
    let sim = faulty("/zhihui: bom");
    assert!(get(&sim, VIEW).unwrap().1.starts_with(b"\xef\xbb\xbf{"));
}

#[test]
fn a_hanging_and_a_dripping_answer_end_with_the_simulator() {
    for plan in ["hang", "drip"] {
        let sim = faulty(&format!("/zhihui: {plan}"));
        let mut stream = TcpStream::connect(sim.base().trim_start_matches("http://")).unwrap();
        stream
            .write_all(
                format!("GET {VIEW} HTTP/1.1\r\nhost: x\r\nauthorization: sim-token\r\n\r\n")
                    .as_bytes(),
            )
            .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        let mut all = Vec::new();
        assert!(stream.read_to_end(&mut all).is_err(), "{plan}: no end yet");
        let began = Instant::now();
        drop(sim);
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let _ = stream.read_to_end(&mut all);
        assert!(began.elapsed() < Duration::from_secs(9), "{plan}");
    }
}

#[test]
fn faults_of_the_content_change_the_data() {
    let list = |plan: &str, page: u32| {
        get_json(
            &faulty(&format!("/zhihui: {plan}")),
            &format!("{LIST}&page={page}&limit=100"),
        )["result"]
            .clone()
    };
    assert_eq!(list("empty", 1)["total"], 0);
    assert_eq!(list("fewer", 25)["records"].as_array().unwrap().len(), 27);
    assert_eq!(list("cap 20", 1)["records"].as_array().unwrap().len(), 20);
    assert_eq!(list("repeat-page", 9)["records"], list("ok", 1)["records"]);
    assert_eq!(list("grow", 1)["total"], 2437);
    let shrinking = faulty("/zhihui: shrink");
    let totals = [1, 2].map(|page| {
        let answer = get_json(&shrinking, &format!("{LIST}&page={page}&limit=100"));
        answer["result"]["total"].clone()
    });
    assert_eq!(totals, [2434, 2284]);
    assert_eq!(
        list("duplicates", 2)["records"][4],
        list("ok", 1)["records"][99]
    );
    assert_eq!(list("stale", 1)["records"][0]["publishDate"], "2025-11-30");
    let view =
        |plan: &str| get_json(&faulty(&format!("/zhihui: {plan}")), VIEW)["result"][0].clone();
    assert!(view("rename sum=total")["total"].is_number());
    assert!(view("stringify sum")["sum"].is_string());
    let sim = faulty("/zhihui: nan sum");
    assert!(
        String::from_utf8(get(&sim, VIEW).unwrap().1)
            .unwrap()
            .contains("\"sum\":NaN")
    );
}

#[test]
fn plans_can_be_limited_to_a_query_and_set_over_http() {
    let sim = Sim::start(Options::default()).unwrap();
    let mut answer = agent()
        .post(format!("{}/_sim/faults", sim.base()))
        .send("/zhihui/api/report/viewPoint/listPage?page=7: 503")
        .unwrap();
    assert_eq!(answer.body_mut().read_json::<Value>().unwrap()["ok"], true);
    assert_eq!(
        get(&sim, &format!("{LIST}&page=6&limit=100")).unwrap().0,
        200
    );
    assert_eq!(
        get(&sim, &format!("{LIST}&page=7&limit=100")).unwrap().0,
        503
    );
    let refused = agent()
        .post(format!("{}/_sim/faults", sim.base()))
        .send("/a: explode")
        .unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(get_json(&sim, "/_sim/log").as_array().unwrap().len(), 2);
}

#[test]
fn the_other_sites_answer_in_their_shapes() {
    let sim = Sim::start(Options::default()).unwrap();
    let url = format!(
        "{}/fangqi/pc/jiandaoyun/ratingprediction/list?openingtype=早盘提示&date=2025-12-01",
        sim.base()
    );
    let value: Value = agent()
        .get(&url)
        .header("referer", "https://fxq.founderfu.com/")
        .call()
        .unwrap()
        .body_mut()
        .read_json()
        .unwrap();
    assert_eq!(
        value["data"]["manyCount"],
        value["data"]["manyList"].as_array().unwrap().len()
    );
    let value: Value = agent()
        .get(&url)
        .call()
        .unwrap()
        .body_mut()
        .read_json()
        .unwrap();
    assert_eq!(value["code"], 403);

    let mut answer = agent()
        .post(format!("{}/jiaoyikecha/ajax/guangao.php", sim.base()))
        .header("x-requested-with", "XMLHttpRequest")
        .send("path=/")
        .unwrap();
    let image = answer.body_mut().read_json::<Value>().unwrap()["data"]["adall"]["imageUrl"]
        .as_str()
        .unwrap()
        .to_owned();
    let picture = agent()
        .get(&image)
        .call()
        .unwrap()
        .body_mut()
        .read_to_vec()
        .unwrap();
    assert!(
        picture.len() > 100_000
            && picture.starts_with(&[0xff, 0xd8])
            && picture.ends_with(&[0xff, 0xd9])
    );

    let page = get(&sim, "/openvlab/flow").unwrap().1;
    assert!(
        String::from_utf8(page)
            .unwrap()
            .contains("/openvlab/api/flow")
    );
    assert_eq!(
        get_json(&sim, "/openvlab/api/flow")["data"]
            .as_array()
            .unwrap()
            .len(),
        60
    );
    assert_eq!(
        get(&sim, "/rongda/analysis_futures_markets/market_structure")
            .unwrap()
            .0,
        302
    );
    let answer = agent()
        .get(format!(
            "{}/rongda/analysis_futures_markets/market_structure",
            sim.base()
        ))
        .header("cookie", "rongda_session=sim")
        .call()
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(
        get(&sim, "/rdqh/")
            .unwrap()
            .1
            .windows(2)
            .any(|w| w == [0xbc, 0xbc]),
        "技 in GBK"
    );
}

fn sign(key: &str, message: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
}

fn markdown() -> Value {
    json!({ "msgtype": "markdown", "markdown": { "title": "t", "text": "正文", "content": "正文" } })
}

#[test]
fn dingtalk_checks_signature_and_rate() {
    let options = Options {
        dingtalk_secret: Some("SEC".into()),
        rate_limit_per_minute: 2,
        ..Options::default()
    };
    let sim = Sim::start(options).unwrap();
    let at = |ms: i64| {
        let sign = sign("SEC", &format!("{ms}\nSEC"))
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        format!("/dingtalk/robot/send?access_token=abc&timestamp={ms}&sign={sign}")
    };
    let now = chrono::Utc::now().timestamp_millis();
    assert_eq!(
        post(
            &sim,
            "/dingtalk/robot/send?access_token=abc&timestamp=1&sign=x",
            &markdown()
        )["errcode"],
        310_000
    );
    assert_eq!(
        post(&sim, &at(now - 4_000_000), &markdown())["errcode"],
        310_000
    );
    let codes: Vec<Value> = (0..3)
        .map(|_| post(&sim, &at(now), &markdown())["errcode"].clone())
        .collect();
    assert_eq!(codes, [0, 0, 410_100]);
    assert_eq!(sim.messages().len(), 2);
    assert_eq!(sim.messages()[0].text, "正文");
}

#[test]
fn wecom_and_feishu_answer_with_their_own_codes() {
    let sim = Sim::start(Options {
        feishu_secret: Some("S".into()),
        ..Options::default()
    })
    .unwrap();
    let wecom = "/wecom/cgi-bin/webhook/send?key=k";
    assert_eq!(post(&sim, wecom, &markdown())["errcode"], 0);
    assert_eq!(
        post(
            &sim,
            wecom,
            &json!({ "msgtype": "markdown", "markdown": { "content": "长".repeat(1400) } })
        )["errcode"],
        40_058
    );
    assert_eq!(
        post(&sim, "/wecom/cgi-bin/webhook/send?key=unknown", &markdown())["errcode"],
        93_000
    );
    let hook = "/feishu/open-apis/bot/v2/hook/h";
    let now = chrono::Utc::now().timestamp();
    let message = |sign: String| json!({ "timestamp": now.to_string(), "sign": sign, "msg_type": "text", "content": { "text": "hi" } });
    assert_eq!(
        post(&sim, hook, &message(sign(&format!("{now}\nS"), "")))["code"],
        0
    );
    assert_eq!(post(&sim, hook, &message("wrong".into()))["code"], 19_021);
}

#[test]
fn it_listens_on_loopback_only() {
    assert!(
        Sim::start(Options {
            listen: "0.0.0.0:0".parse().unwrap(),
            ..Options::default()
        })
        .is_err()
    );
}
