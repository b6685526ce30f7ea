#![allow(clippy::unwrap_used, missing_docs)]
mod common;
use common::{Site, TOKEN};
#[test]
fn look() {
    let site =
        Site::with_token("[backup]\nrepository = \"/var/backups/oa\"\npassword = \"env:X\"\n");
    let serving = site.serve(Some(TOKEN));
    let root = oa_testkit::workspace_root();
    let out = root.join("target/screenshots");
    std::fs::create_dir_all(&out).unwrap();
    let script = root.join("target/browser/shots.mjs");
    std::fs::copy(
        root.join("crates/oa-report/tests/browser/shots.mjs"),
        &script,
    )
    .unwrap();
    let status = std::process::Command::new("node")
        .arg(script)
        .arg(format!("http://{}/", serving.at))
        .arg(TOKEN)
        .arg(&out)
        .status()
        .unwrap();
    println!("{}", std::fs::read_to_string(site.log()).unwrap());
    assert!(status.success());
}
