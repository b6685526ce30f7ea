//! 交易可查: a login form, cookies, an image a day, and a page of broker positions.

use serde_json::json;

use super::{table, thousands, today};
use crate::Context;
use crate::data::{Rng, day_number};
use crate::fault::Fault;
use crate::http::{Response, parse_form};
use crate::jpeg;

const USER: &str = "13800000000";
const PASSWORD: &str = "sim-password";
const BROKERS: [&str; 6] = [
    "东方财富",
    "国泰君安",
    "东证期货",
    "永安期货",
    "中信期货",
    "银河期货",
];

const HOME: &str = r#"<!doctype html><html><head><meta charset="utf-8"><title>交易可查</title></head><body>
<form id="login"><input placeholder="手机号" name="user"><input type="password" placeholder="密码" name="pass"><button type="submit">登录</button></form>
<img src="/jiaoyikecha/uploadfile/today.jpg" alt="每日蓝图"><div id="app"></div>
<script>
document.getElementById('login').addEventListener('submit', async (e) => {
  e.preventDefault();
  const answer = await fetch('/jiaoyikecha/ajax/login.php', {method: 'POST', body: new URLSearchParams(new FormData(e.target))});
  if ((await answer.json()).code === 0) location.hash = '#/user/home'; else document.getElementById('app').textContent = '手机号或密码错误';
});
async function route() {
  const code = /^#\/variety\/structure\?code=(\w+)$/.exec(location.hash);
  if (code) document.getElementById('app').innerHTML = await (await fetch('/jiaoyikecha/ajax/structure.php?code=' + code[1])).text();
}
addEventListener('hashchange', route); route();
</script></body></html>"#;

pub fn handle(context: &Context<'_>, rest: &str) -> Response {
    let expired = context.fault == Some(&Fault::ExpiredToken);
    let logged_in = !expired
        && context
            .request
            .header("cookie")
            .is_some_and(|c| c.contains("jyk_session=sim"));
    match rest {
        "" | "index.html" => Response::html(HOME),
        "login" => Response::html("<title>登录</title>"),
        "ajax/login.php" => {
            let form = parse_form(&String::from_utf8_lossy(&context.request.body));
            let right = form.get("user").is_some_and(|u| u == USER)
                && form.get("pass").is_some_and(|p| p == PASSWORD);
            if right && !expired {
                Response::json(&json!({ "code": 0, "msg": "ok" }))
                    .with("set-cookie", "jyk_session=sim; Path=/; HttpOnly")
            } else {
                Response::json(&json!({ "code": 1, "msg": "手机号或密码错误" }))
            }
        }
        "ajax/guangao.php" => {
            let xhr = context.request.header("x-requested-with") == Some("XMLHttpRequest");
            let form = parse_form(&String::from_utf8_lossy(&context.request.body));
            if !xhr || form.get("path").is_none_or(|p| p != "/") {
                return Response::json(&json!({ "code": 1, "msg": "参数错误" }));
            }
            let host = context.request.header("host").unwrap_or("127.0.0.1");
            let url = if context.fault == Some(&Fault::Empty) {
                String::new()
            } else {
                format!("http://{host}/jiaoyikecha/uploadfile/{}.jpg", today())
            };
            Response::json(&json!({ "code": 0, "data": { "adall": { "imageUrl": url } } }))
        }
        "ajax/structure.php" if logged_in => {
            let code = context.request.param("code").to_uppercase();
            let mut rng = Rng::new(
                context.options.seed,
                &[5, day_number(today()), code.bytes().map(u64::from).sum()],
            );
            let mut whole = |span: i64| {
                thousands(
                    i64::try_from(rng.below(span.unsigned_abs() * 2)).unwrap_or_default() - span,
                )
            };
            let rows: Vec<Vec<String>> = BROKERS
                .iter()
                .map(|b| {
                    vec![
                        format!("{b}（代客）"),
                        whole(90_000),
                        whole(9_000),
                        format!("{}%", whole(99)),
                    ]
                })
                .collect();
            Response::html(table(
                &format!("{code} 席位持仓"),
                &["席位", "净持仓", "变化", "占比"],
                &rows,
            ))
        }
        "ajax/structure.php" => Response::redirect("/jiaoyikecha/login"),
        _ if rest.starts_with("uploadfile/") && rest.ends_with(".jpg") => {
            let mut rng = Rng::new(
                context.options.seed,
                &[6, rest.bytes().map(u64::from).sum()],
            );
            Response::new(200, "image/jpeg", jpeg::noise(&mut rng, 200))
        }
        _ => Response::not_found(),
    }
}
