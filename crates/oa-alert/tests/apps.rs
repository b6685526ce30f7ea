//! Application robots: messages with buttons, what happens when these are pressed, and messages that turn green where they stand.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use common::{Service, rules};
use oa_core::base::links::{Link, LinkAction, LinkKey, unsigned};
use oa_core::base::secrets::Secret;
use oa_core::journal::incidents::{self, Policy};
use oa_core::journal::spool::Record;
use oa_core::model::event::{Alert, Event, RunFailed, Work};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{RunError, Status};
use oa_sim::{AppCard, Options};
use oa_testkit::wait_until;
use serde_json::{Value, json};
use uuid::Uuid;

const KEY: &str = "test-key-of-links-0123";
const REPORT: &str =
    "[report]\nurl = \"https://oa.example.com\"\nlink_key = \"test-key-of-links-0123\"\n";
const FEISHU: &str = "[report]\nurl = \"https://oa.example.com\"\nlink_key = \"test-key-of-links-0123\"\n\
    [[alert.channels]]\nname = \"fs\"\nkind = \"feishu_app\"\nurl = \"BASE/feishu\"\napp_id = \"cli_a1b2\"\nsecret = \"app-secret\"\nchat = \"oc_ops\"\n";
const DINGTALK: &str = "[report]\nurl = \"https://oa.example.com\"\nlink_key = \"test-key-of-links-0123\"\n\
    [[alert.channels]]\nname = \"dd\"\nkind = \"dingtalk_app\"\nurl = \"BASE/dingtalk\"\napp_id = \"dinga1b2\"\nsecret = \"app-secret\"\nchat = \"cidops==\"\n";
const WECOM: &str = "[report]\nurl = \"https://oa.example.com\"\nlink_key = \"test-key-of-links-0123\"\n\
    [[alert.channels]]\nname = \"wx\"\nkind = \"wecom_app\"\nurl = \"BASE/wecom\"\napp_id = \"wwa1b2\"\nagent_id = 1000002\nsecret = \"app-secret\"\nchat = \"wang|gone\"\n";
const SOON: Duration = Duration::from_secs(20);

fn failed(task: &str) -> Event {
    Event::RunFailed(Box::new(RunFailed {
        run: Uuid::now_v7(),
        task: task.to_owned(),
        title: format!("持仓排名 {task}"),
        work: Work::Source,
        status: Status::Failed,
        error: RunError::new(ErrorKind::Http5xx, "HTTP 502"),
        attempts: 4,
        started_at: Utc::now(),
        finished_at: Utc::now(),
        failing_since: None,
        failures: 1,
        last_success_at: None,
        tables: String::new(),
        day: Some("2025-12-01".to_owned()),
        collected: 0,
        expected: None,
        host: "crawler1".to_owned(),
        provider: String::new(),
        history_unknown: false,
    }))
}

fn policy() -> Policy {
    Policy {
        timezone: chrono_tz::Asia::Shanghai,
        keep_revisions: true,
        repeat: Duration::from_secs(3600),
    }
}

fn signed(action: LinkAction, alert: Uuid, channel: &str, left: TimeDelta) -> String {
    let key = LinkKey::new(Secret::new(KEY.to_owned())).unwrap();
    let link = Link {
        action,
        alert,
        channel: channel.to_owned(),
        expires: Utc::now() + left,
    };
    key.sign(&link).unwrap()
}

/// `oa-alert listen`, and what it says.
struct Listener {
    child: Child,
    log: std::path::PathBuf,
}

impl Listener {
    fn start(service: &Service) -> Self {
        let log = service.dir.path().join("listen.log");
        let file = File::create(&log).unwrap();
        let mut command = service.command(&["listen"]);
        command.stdout(Stdio::null()).stderr(file);
        Self {
            child: command.spawn().unwrap(),
            log,
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// As systemd stops it; gives the exit code.
    fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut code = None;
        wait_until("the listener ends", Duration::from_secs(8), || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An application's messages in the group, as a person sees and presses them.
struct Group<'a> {
    service: &'a Service,
    robot: &'static str,
}

impl Group<'_> {
    /// The incident of a task, and its message.
    fn fails(&self, task: &str) -> Uuid {
        self.service.sql(&format!(
            "INSERT INTO oa.tasks (name, tool, title, schedule, collects) VALUES ('{task}', 'oa-crawl', '', '0 9 * * *', true)"
        ));
        incidents::raise(&mut self.service.db(), failed(task), &policy()).unwrap();
        // A busy machine may not reach its database in time.
        wait_until("it is sent", SOON, || self.service.flush() == 0);
        let alert = self
            .service
            .one("SELECT id::text FROM oa.alerts ORDER BY seq DESC LIMIT 1");
        alert.parse().unwrap()
    }

    /// The first message about a task: what comes later says that it is over.
    fn card(&self, task: &str) -> AppCard {
        let of_it = |c: &AppCard| c.robot == self.robot && shown(c).contains(task);
        self.service.sim.cards().into_iter().find(of_it).unwrap()
    }

    fn press(&self, task: &str, word: &str) -> (String, String) {
        let card = self.card(task);
        let button = buttons(&card).into_iter().find(|b| b.0 == word);
        let (_, value) = button.unwrap_or_else(|| panic!("no {word} on {card:?}"));
        self.press_value(task, &value)
    }

    /// What is said to whoever presses.
    fn press_value(&self, task: &str, value: &Value) -> (String, String) {
        let answer = self
            .service
            .sim
            .press(&self.card(task).id, value, "ou_wang");
        let answer = answer.unwrap();
        assert_eq!(answer["code"], 200, "{answer}");
        if self.card(task).robot == "dingtalk" {
            let said = answer.pointer("/data/response/cardData/cardParamMap/msgContent");
            let said = said.map_or("", |said| said.as_str().unwrap());
            return (
                if said.is_empty() { "success" } else { "said" }.to_owned(),
                said.to_owned(),
            );
        }
        let text = |pointer: &str| {
            answer
                .pointer(pointer)
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        };
        (text("/data/toast/type"), text("/data/toast/content"))
    }

    fn becomes(&self, task: &str, colour: &str, note: &str) {
        let fits = |card: &AppCard| {
            let has = match card.robot {
                "dingtalk" => card.content["msgTitle"]
                    .as_str()
                    .unwrap()
                    .starts_with(colour),
                _ => card.content["header"]["template"] == colour,
            };
            has && shown(card).contains(note)
        };
        wait_until(&format!("{task} is {colour}, {note}"), SOON, || {
            fits(&self.card(task))
        });
    }
}

fn shown(card: &AppCard) -> String {
    card.content.to_string()
}

/// The words of a message's buttons, and what is sent when one is pressed.
fn buttons(card: &AppCard) -> Vec<(String, Value)> {
    if card.robot == "dingtalk" {
        let form: Value =
            serde_json::from_str(card.content["sys_full_json_obj"].as_str().unwrap()).unwrap();
        let buttons = form["msgButtons"].as_array().unwrap().iter();
        return buttons
            .map(|b| (b["text"].as_str().unwrap().to_owned(), b["id"].clone()))
            .collect();
    }
    let elements = card.content["elements"].as_array().unwrap().iter();
    let actions = elements.filter_map(|e| e["actions"].as_array()).flatten();
    let button = |b: &Value| {
        let word = b["text"]["content"].as_str().unwrap().to_owned();
        (word, b["value"].clone())
    };
    actions.map(button).collect()
}

fn words(card: &AppCard) -> Vec<String> {
    buttons(card).into_iter().map(|b| b.0).collect()
}

fn feishu() -> Options {
    Options {
        app_secret: Some("app-secret".into()),
        ping_interval: 1,
        ..Options::default()
    }
}

fn groups(service: &Service) -> (Group<'_>, Group<'_>) {
    let group = |robot| Group { service, robot };
    (group("feishu"), group("dingtalk"))
}

#[test]
fn a_button_does_once_what_its_link_does_and_the_message_turns_green_where_it_stands() {
    let both = format!("{FEISHU}{}", DINGTALK.trim_start_matches(REPORT));
    let mut service = Service::start_with(&both, feishu());
    // Nobody listens, which people hear of; and the messages of that have buttons too.
    let (_, found) = service.check();
    assert!(rules(&found).contains(&"listener_down"), "{found:?}");
    let mut listener = Listener::start(&service);
    wait_until("both are connected", SOON, || service.sim.connected() == 2);
    assert_eq!(service.alert(&["listen"]).code, 77, "one on this machine");
    let (group, dingtalk) = groups(&service);
    let alert = group.fails("positions");

    let card = group.card("positions");
    assert_eq!(card.chat, "oc_ops");
    assert_eq!(card.content["header"]["template"], "red");
    assert_eq!(words(&card), ["认领", "静默 2 小时", "重跑", "看日志"]);
    assert!(!shown(&card).contains("app-secret") && shown(&card).contains("HTTP 502"));

    // What is not ours, is over, or is of another channel does nothing.
    for (value, said) in [
        (json!({ "oa": "AWEBd2hhdGV2ZXI" }), "不是本服务签发"),
        (json!({ "other": 1 }), "不是本服务签发"),
        (
            json!({ "oa": signed(LinkAction::Acknowledge, alert, "fs", TimeDelta::minutes(-1)) }),
            "已过期",
        ),
        (
            json!({ "oa": signed(LinkAction::Acknowledge, alert, "gone", TimeDelta::hours(1)) }),
            "从配置中移除",
        ),
        (
            json!({ "oa": signed(LinkAction::Acknowledge, Uuid::now_v7(), "fs", TimeDelta::hours(1)) }),
            "没有这条告警",
        ),
    ] {
        let (kind, text) = group.press_value("positions", &value);
        assert!(kind == "error" && text.contains(said), "{value}: {text}");
    }
    // A channel that another machine has with the same application is one, too.
    service.sql("INSERT INTO oa.channel_routes (name, host, after_seconds, min_rank) VALUES ('elsewhere', 'other', 0, 0)");
    let theirs = signed(
        LinkAction::Acknowledge,
        Uuid::now_v7(),
        "elsewhere",
        TimeDelta::hours(1),
    );
    let (_, text) = group.press_value("positions", &json!({ "oa": theirs }));
    assert!(text.contains("没有这条告警"), "{text}");
    service.sql("DELETE FROM oa.channel_routes WHERE host = 'other'");
    let (_, text) = dingtalk.press_value("positions", &json!("other"));
    assert!(text.contains("没有这条消息的记录"), "{text}");
    dingtalk.becomes("positions", "🔴", "HTTP 502");
    assert_eq!(words(&dingtalk.card("positions")), words(&card));
    let taken = "SELECT coalesce(acknowledged_by, '-') FROM oa.incidents WHERE task = 'positions'";
    assert_eq!(service.one(taken), "-");

    let (_, acknowledge) = buttons(&card).swap_remove(0);
    // Whoever reads the table has no button.
    let link = acknowledge["oa"].as_str().unwrap();
    assert_eq!(
        service.one(&format!(
            "SELECT count(*) || ' ' || count(*) FILTER (WHERE content::text LIKE '%{link}%') FROM oa.cards WHERE alert = '{alert}'"
        )),
        "2 0"
    );
    let (kind, text) = group.press("positions", "认领");
    assert!(kind == "success" && text.contains("已认领"), "{text}");
    assert_eq!(service.one(taken), "ou_wang (fs)");
    group.becomes("positions", "green", "已认领：ou_wang (fs)");
    dingtalk.becomes("positions", "🟢", "已认领：ou_wang (fs)");
    assert_eq!(
        words(&group.card("positions")),
        ["静默 2 小时", "重跑", "看日志"]
    );
    let (kind, text) = group.press_value("positions", &acknowledge);
    assert!(kind == "info" && text.contains("用过"), "{text}");
    // An event that comes in parts.
    let mut silence = buttons(&card).swap_remove(1).1;
    silence["padding"] = "长".repeat(1000).into();
    assert_eq!(group.press_value("positions", &silence).0, "success");
    assert_eq!(
        service.one("SELECT fingerprint || ' ' || coalesce(task, rule, host, 'alone') || ' ' || by FROM oa.silences"),
        "run:positions alone ou_wang (fs)"
    );
    assert_eq!(group.press("positions", "重跑").0, "success");
    assert_eq!(
        service.one("SELECT kind || ' ' || subject || ' ' || (params->>'day') || ' ' || requested_by FROM oa.requests"),
        "run positions 2025-12-01 ou_wang (fs)"
    );
    group.becomes("positions", "green", "要求重跑：ou_wang (fs)");
    assert_eq!(words(&group.card("positions")), ["看日志"]);
    assert_eq!(
        service.one("SELECT string_agg(used_by, ',') FROM oa.used_links"),
        "ou_wang (fs),ou_wang (fs),ou_wang (fs)"
    );
    dingtalk_has_the_same_buttons(&dingtalk, alert);

    // A token that ends costs nothing, nor does a connection that breaks.
    service.sim.end_tokens();
    let sql = "UPDATE oa.incidents SET acknowledged_by = 'li' WHERE task = 'positions'";
    service.sql(sql);
    group.becomes("positions", "green", "已认领：li");
    wait_until("pings go", SOON, || service.sim.pings() > 1);
    service.sim.disconnect();
    dingtalk.becomes("positions", "🟢", "已认领：li");
    wait_until("both are connected again", SOON, || {
        service.sim.connected() == 2
    });

    // It is over: the message says so, and has nothing left to press.
    group.fails("volumes");
    let (_, acknowledge) = buttons(&group.card("volumes")).swap_remove(0);
    for task in ["positions", "volumes"] {
        incidents::resolve_retired(&mut service.db(), task, "").unwrap();
        group.becomes(task, "green", "已恢复：");
        assert!(shown(&group.card(task)).contains("【已恢复】"));
        dingtalk.becomes(task, "🟢", "已恢复：");
    }
    assert_eq!(words(&group.card("volumes")), ["看日志"]);
    let (kind, text) = group.press_value("volumes", &acknowledge);
    assert!(kind == "info" && text.contains("已经恢复"), "{text}");

    // PostgreSQL is away: whoever presses sees so, and presses again.
    group.fails("prices");
    service.server.stop();
    let (group, dingtalk) = groups(&service);
    let (kind, text) = group.press("prices", "认领");
    assert!(kind == "error" && text.contains("请稍后再按"), "{text}");
    let (_, text) = dingtalk.press("prices", "静默 2 小时");
    assert!(text.contains("请稍后再按"), "{text}");
    service.server.start_again();
    let (group, dingtalk) = groups(&service);
    assert_eq!(dingtalk.press("prices", "静默 2 小时").0, "success");
    let (kind, text) = group.press("prices", "认领");
    assert_eq!(kind, "success", "{text}");
    group.becomes("prices", "green", "已认领");

    // Killed, the next one listens at once; while another machine listens, it waits for that one to be gone.
    let gone = || {
        wait_until("the connections are gone", SOON, || {
            service.sim.connected() == 0
        });
    };
    listener.child.kill().unwrap();
    listener.child.wait().unwrap();
    gone();
    listener = Listener::start(&service);
    wait_until("both are connected", SOON, || service.sim.connected() == 2);
    assert_eq!(listener.stop(), Some(0), "{}", listener.said());
    gone();
    service.sql(
        "UPDATE oa.listeners SET host = 'another', leased_until = now() + interval '50 minutes'",
    );
    listener = Listener::start(&service);
    wait_until("it waits", SOON, || {
        listener.said().contains("another machine listens")
    });
    assert_eq!(service.sim.connected(), 0);
    service
        .sql("UPDATE oa.listeners SET host = oa.listeners.host || '-gone', leased_until = now()");
    wait_until("both are connected", SOON, || service.sim.connected() == 2);
    group.fails("stocks");
    assert_eq!(group.press("stocks", "静默 2 小时").0, "success");
    // PostgreSQL has just been started: that nobody could say meanwhile that he listens is no news.
    service.sql("UPDATE oa.listeners SET connected_at = now() - interval '1 hour'");
    let (_, found) = service.check();
    assert!(!rules(&found).contains(&"listener_down"), "{found:?}");
    assert_eq!(listener.stop(), Some(0), "{}", listener.said());
    assert!(!listener.said().contains("panicked") && !listener.said().contains("app-secret"));

    // Nobody listens: what cron starts each minute changes messages as well.
    incidents::resolve_retired(&mut service.db(), "stocks", "").unwrap();
    assert_eq!(service.flush(), 0);
    group.becomes("stocks", "green", "已恢复");
}

#[test]
fn an_application_says_what_is_wrong_with_it_and_its_messages_survive_postgresql() {
    let mut service = Service::start_with(FEISHU, feishu());
    let done = service.alert(&["test", "fs"]);
    assert_eq!(done.code, 0, "{done:?}");
    for (right, wrong, said) in [
        (
            "secret = \"app-secret\"",
            "secret = \"wrong-secret\"",
            "app_id or secret is wrong",
        ),
        ("oc_ops", "oc_unknown", "not in the group"),
    ] {
        service.configure("", &FEISHU.replace(right, wrong));
        let done = service.alert(&["test", "fs"]);
        assert!(done.code == 1 && done.stdout.contains(said), "{done:?}");
    }
    for (right, wrong, said) in [
        ("cli_a1b2", "ab12", "cli_"),
        ("oc_ops", "ops", "oc_"),
        (
            "BASE/feishu",
            "https://open.feishu.cn/open-apis/bot/v2/hook/x",
            "remove url",
        ),
        ("BASE/feishu", "https://oapi.dingtalk.com", "dingtalk"),
        ("app_id = \"cli_a1b2\"\n", "", "app_id is missing"),
        (
            "chat = ",
            "at_mobiles = [\"13800000000\"]\nchat = ",
            "cannot mention mobile numbers",
        ),
    ] {
        service.configure("", &FEISHU.replace(right, wrong));
        let done = service.alert(&["check-config"]);
        assert!(
            done.code == 78 && done.stdout.contains(said),
            "{wrong}: {done:?}"
        );
    }
    service.configure(
        "",
        &FEISHU.replace("[report]\nurl = \"https://oa.example.com\"\n", "[report]\n"),
    );
    let done = service.alert(&["check-config"]);
    assert!(
        done.code == 0 && done.stdout.contains("have their buttons"),
        "buttons need no page: {done:?}"
    );
    let no_key = FEISHU.replace("link_key = \"test-key-of-links-0123\"\n", "");
    service.configure("", &no_key);
    assert_eq!(service.alert(&["listen"]).code, 78);
    assert!(
        service
            .alert(&["check-config"])
            .stdout
            .contains("no buttons")
    );
    service.configure("", FEISHU);

    // An answer that is lost: what is sent once more is the same message.
    let before = service.sim.cards().len();
    service
        .sim
        .fault("/feishu/open-apis/im: truncate x1 then ok")
        .unwrap();
    let (group, _) = groups(&service);
    service.sql("INSERT INTO oa.tasks (name, tool, title, schedule, collects) VALUES ('lost', 'oa-crawl', '', '0 9 * * *', true)");
    incidents::raise(&mut service.db(), failed("lost"), &policy()).unwrap();
    assert_eq!(service.flush(), 1);
    service.hurry();
    assert_eq!(service.flush(), 0);
    assert_eq!(service.sim.cards().len(), before + 1);
    assert_eq!(group.card("lost").content["header"]["template"], "red");

    // Sent while PostgreSQL was away, it turns green all the same.
    service.server.stop();
    let alert = Alert::new(failed("away"));
    service.spool().put(&[Record::Alert(alert)]).unwrap();
    assert_eq!(service.flush(), 75);
    let away = |service: &Service| groups(service).0.card("away");
    assert_eq!(away(&service).content["header"]["template"], "red");
    service.server.start_again();
    assert_eq!(service.flush(), 0);
    assert_eq!(service.one("SELECT count(*)::text FROM oa.cards"), "2");
    assert_eq!(
        fs::read_dir(service.state().join("cards")).unwrap().count(),
        0
    );
    for task in ["away", "lost"] {
        service.sql(&format!(
            "UPDATE oa.incidents SET acknowledged_by = 'li', acknowledged_at = now() WHERE fingerprint = 'run:{task}'"
        ));
    }
    // The platform has no such message any more: it is left as it is.
    service.sql("UPDATE oa.cards SET message = 'om_gone' WHERE alert IN (SELECT id FROM oa.alerts WHERE fingerprint = 'run:lost')");
    assert_eq!(service.flush(), 0);
    assert_eq!(away(&service).content["header"]["template"], "green");
    assert_eq!(
        service.one("SELECT string_agg(message, ',') FROM oa.cards WHERE ended_at IS NOT NULL"),
        "om_gone"
    );
    dingtalk_says_what_is_wrong(&service);
    wecom_sends_cards_whose_links_act(&service);
}

/// They have its name for what they do, and what is said to who presses stands on the card.
fn dingtalk_has_the_same_buttons(group: &Group<'_>, alert: Uuid) {
    let service = group.service;
    let old = signed(LinkAction::Silence, alert, "dd", TimeDelta::minutes(-1));
    let old = unsigned(&old).unwrap();
    let swap = format!(
        "ALTER TABLE oa.cards ADD COLUMN kept jsonb; UPDATE oa.cards SET kept = content, content = jsonb_set(content, '{{actions,1,signed}}', '\"{old}\"')"
    );
    service.sql(&swap);
    let (_, text) = group.press("positions", "静默 2 小时");
    assert!(text.contains("已过期"), "{text}");
    service.sql("UPDATE oa.cards SET content = kept; ALTER TABLE oa.cards DROP COLUMN kept");
    assert_eq!(group.press("positions", "静默 2 小时").0, "success");
    let (_, text) = group.press_value("positions", &json!("silence"));
    assert!(text.contains("用过"), "{text}");
    group.becomes("positions", "🟢", "静默 2 小时：ou_wang (dd)");
    // It hides what has become of the incident only for a while.
    let changes = group.card("positions").changes;
    let (_, text) = group.press_value("positions", &json!("silence"));
    assert!(text.contains("用过"), "{text}");
    wait_until("the card is as it was", SOON, || {
        group.card("positions").changes > changes
    });
    assert_eq!(words(&group.card("positions")), ["重跑", "看日志"]);
}

/// What each robot says to what is wrong.
fn dingtalk_says_what_is_wrong(service: &Service) {
    service.configure("", DINGTALK);
    let done = service.alert(&["test", "dd"]);
    assert_eq!(done.code, 0, "{done:?}");
    for (right, wrong, said) in [
        (
            "secret = \"app-secret\"",
            "secret = \"wrong-secret\"",
            "app_id or secret is wrong",
        ),
        ("cidops==", "cidunknown", "robot not in group"),
    ] {
        service.configure("", &DINGTALK.replace(right, wrong));
        let done = service.alert(&["test", "dd"]);
        assert!(done.code == 1 && done.stdout.contains(said), "{done:?}");
    }
    for (right, wrong, said) in [
        ("cidops==", "ops", "cid"),
        ("chat = ", "agent_id = 1\nchat = ", "agent_id"),
    ] {
        service.configure("", &DINGTALK.replace(right, wrong));
        let done = service.alert(&["check-config"]);
        assert!(done.code == 78 && done.stdout.contains(said), "{done:?}");
    }
}

/// Another channel of the same machine.
fn wecom_sends_cards_whose_links_act(service: &Service) {
    service.configure("", WECOM);
    let done = service.alert(&["test", "wx"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("gone"), "{done:?}");
    let message = service.sim.messages().pop().unwrap();
    assert_eq!(message.raw["msgtype"], "markdown");
    let alert = groups(service).0.fails("positions");
    let message = service.sim.messages().pop().unwrap();
    let card = &message.raw["template_card"];
    assert_eq!(
        (message.token.as_str(), message.raw["agentid"].clone()),
        ("wang|gone", json!(1_000_002))
    );
    let links: Vec<&str> = card["jump_list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["title"].as_str().unwrap())
        .collect();
    assert_eq!(links, ["认领", "静默 2 小时", "重跑"]);
    let url = card["jump_list"][0]["url"].as_str().unwrap();
    let key = LinkKey::new(Secret::new(KEY.to_owned())).unwrap();
    let link = key
        .verify(
            url.strip_prefix("https://oa.example.com/act/").unwrap(),
            Utc::now(),
        )
        .unwrap();
    assert_eq!(
        (link.alert, link.action, link.channel.as_str()),
        (alert, LinkAction::Acknowledge, "wx")
    );
    assert!(
        message.title.contains("持仓排名") && message.text.contains("HTTP 502"),
        "{message:?}"
    );
    for (right, wrong, said) in [
        (
            "secret = \"app-secret\"",
            "secret = \"wrong-secret\"",
            "app_id or secret is wrong",
        ),
        ("wang|gone", "nobody", "可见范围"),
    ] {
        service.configure("", &WECOM.replace(right, wrong));
        let done = service.alert(&["test", "wx"]);
        assert!(
            done.code == 1 && done.stdout.contains(said) && !done.stdout.contains("-secret"),
            "{done:?}"
        );
    }
    for (right, wrong, said) in [
        ("wwa1b2", "a1b2", "ww"),
        ("agent_id = 1000002\n", "", "agent_id is missing"),
    ] {
        service.configure("", &WECOM.replace(right, wrong));
        let done = service.alert(&["check-config"]);
        assert!(done.code == 78 && done.stdout.contains(said), "{done:?}");
    }
    service.configure("", WECOM);
    assert_eq!(
        service.alert(&["listen"]).code,
        78,
        "nobody presses anything"
    );
}
