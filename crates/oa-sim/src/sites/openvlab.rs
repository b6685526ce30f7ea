//! openvlab: a page whose script loads its data from an address that contains `api`.

use serde_json::{Value, json};

use super::today;
use crate::Context;
use crate::data::{Rng, VARIETIES, day_number};
use crate::fault::Fault;
use crate::http::Response;

const PAGE: &str = r#"<!doctype html><html><head><meta charset="utf-8"><title>期权流向</title></head><body>
<table><thead><tr><th>合约</th><th>净流入(万)</th><th>成交(万)</th><th>涨跌</th></tr></thead><tbody></tbody></table>
<script>
fetch('/openvlab/api/flow').then(r => r.json()).then(({data}) => {
  for (const f of data) {
    const row = document.querySelector('tbody').insertRow();
    for (const cell of [f.contract, f.flow.toLocaleString('en'), f.volume.toLocaleString('en'), f.change + '%']) row.insertCell().textContent = cell;
  }
});
</script></body></html>"#;

pub fn handle(context: &Context<'_>, rest: &str) -> Response {
    match rest {
        "flow" => Response::html(PAGE),
        // The same without a script: as the site may be one day.
        "flow-static" => Response::html(PAGE.replace(
            "<tbody></tbody>",
            "<tbody><tr><td>rb2601C3200</td><td>1,234.5</td><td>2,000</td><td>-1.5%</td></tr><tr><td>白糖2601P5400</td><td>-7</td><td>3</td><td>0%</td></tr></tbody>",
        ).replace("/openvlab/api/flow", "/openvlab/gone")),
        "login" => Response::html("<title>登录</title>"),
        "api/flow" => {
            let minute = u64::try_from(chrono::Utc::now().timestamp() / 60).unwrap_or_default();
            let mut rng = Rng::new(context.options.seed, &[7, day_number(today()), minute]);
            let list: Vec<Value> = (0..if context.fault == Some(&Fault::Empty) { 0 } else { 60 })
                .map(|_| {
                    let (code, name, _) = *rng.pick(&VARIETIES);
                    let (strike, side) = (1000 + rng.below(90) * 100, if rng.below(2) == 0 { "C" } else { "P" });
                    let contract = if rng.below(4) == 0 { format!("{name}2601{side}{strike}") } else { format!("{}2601{side}{strike}", code.to_lowercase()) };
                    json!({ "contract": contract, "flow": rng.decimal(-2000, 2000), "volume": rng.decimal(0, 5000), "change": rng.decimal(-20, 20) })
                })
                .collect();
            Response::json(&json!({ "code": 0, "data": list }))
        }
        _ => Response::not_found(),
    }
}
