//! The API does what its own OpenAPI document says, whatever it is given: checked by schemathesis, which `scripts/setup --tests` installs
//! below `target/schemathesis`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::process::Command;

use common::{Site, TOKEN};

#[test]
fn the_api_keeps_to_its_document() {
    let tool = oa_testkit::workspace_root().join("target/schemathesis/bin/schemathesis");
    if !tool.is_file() {
        oa_testkit::skip("schemathesis", "scripts/setup --tests");
        return;
    }
    let site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    let id: uuid::Uuid = site
        .server
        .connect()
        .query_one("SELECT id FROM oa.runs WHERE status = 'partial'", &[])
        .unwrap()
        .get(0);
    // Whatever comes to mind, every operation and every border of its parameters; and then things that are there, one after the other.
    let there = format!(
        "[parameters]\nid = \"{id}\"\nname = \"rongda-positions\"\ntask = \"rongda-positions\"\n"
    );
    for (known, phases, examples) in [
        (String::new(), "examples,coverage,fuzzing", "5"),
        (there, "fuzzing,stateful", "8"),
    ] {
        fs::write(site.dir.path().join("schemathesis.toml"), known).unwrap();
        let done = Command::new(&tool)
            .arg("run")
            .arg(format!("http://{}/openapi.json", serving.at))
            .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
            // Ten wrong tokens close the door, for the other requests too; serving.rs tries it.
            .args(["--checks", "all", "--exclude-checks", "ignored_auth"])
            .args(["--phases", phases, "--max-examples", examples])
            .args(["--seed", "7", "--generation-database", "none"])
            .args(["--workers", "1", "--request-timeout", "20", "--no-color"])
            .current_dir(site.dir.path())
            .output()
            .unwrap();
        let report = format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        println!("{report}");
        assert!(done.status.success(), "{report}");
    }
}
