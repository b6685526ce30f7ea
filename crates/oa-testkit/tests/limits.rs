//! What the system may refuse to a process: threads, open files, large files. Each is an error that says so and what to raise, never a
//! panic, and nothing is lost by it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::{Command, Output};

use oa_testkit::{Postgres, program, write_private};

struct Machine {
    dir: tempfile::TempDir,
    server: Postgres,
}

impl Machine {
    fn new() -> Self {
        let (dir, server) = (oa_testkit::temp_dir(), Postgres::start());
        let config = "state_dir = \"state\"\n[database]\nurl = \"env:DATABASE_URL\"\n\
            [backup]\nrepository = \"repo\"\npassword = \"file:key\"\nkind = \"logical\"\n\
            [[alert.channels]]\nname = \"ops\"\nkind = \"command\"\ncommand = [\"true\"]\n";
        write_private(&dir.path().join("oa.toml"), config);
        write_private(&dir.path().join("key"), "a long password of tests");
        let machine = Self { dir, server };
        for (program, command) in [("oa-migrate", "init"), ("oa-backup", "init")] {
            machine.well(&format!("{program} {command}"));
        }
        machine
    }

    /// Under `limit`, a command of the shell.
    fn run(&self, limit: &str, line: &str) -> Output {
        let (name, arguments) = line.split_once(' ').unwrap();
        Command::new("sh")
            .arg("-c")
            .arg(format!("{limit}; exec \"$0\" {arguments}"))
            .arg(program(name))
            .current_dir(self.dir.path())
            .env("OA_CONFIG", self.dir.path().join("oa.toml"))
            .env("DATABASE_URL", self.server.url())
            .output()
            .unwrap()
    }

    fn well(&self, line: &str) -> String {
        let done = self.run("true", line);
        assert_eq!(done.status.code(), Some(0), "{line}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// What it says, once it has ended as it should.
    fn refused(&self, limit: &str, line: &str) -> (i32, String) {
        let done = self.run(limit, line);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let code = done.status.code();
        assert!(
            code.is_some_and(|code| [0, 1, 2, 75, 77, 78].contains(&code))
                && !said.contains("panicked"),
            "{limit}: {line}: {done:?}"
        );
        (code.unwrap_or(-1), said)
    }
}

#[test]
fn whatever_the_system_refuses_a_program_says_so_and_loses_nothing() {
    let machine = Machine::new();
    let own = "oa-crawl exec --task own --retries 0 -- echo done";
    let commands = [
        own,
        "oa-crawl run zhihui-full-view",
        "oa-migrate init",
        "oa-report health",
        "oa-backup full",
        "oa-restore drill --yes",
        "oa-alert send --title t text",
        "oa-alert check",
        "oa-report serve --listen 127.0.0.1:0",
    ];
    // No thread has so large a stack, so that each is refused.
    let threads = "export RUST_MIN_STACK=140737488355328";
    for line in commands {
        let (code, said) = machine.refused(threads, line);
        assert!(code != 0 && said.contains("ulimit -u"), "{line}: {said}");
    }
    for line in &commands[..5] {
        for most in [5, 11] {
            machine.refused(&format!("ulimit -n {most}"), line);
        }
    }
    for line in [own, "oa-backup full"] {
        machine.refused("ulimit -f 1", line);
    }
    machine.well("oa-crawl drain");
    let logged = machine.well("oa-report logs --task own --format json");
    assert!(logged.contains("ulimit -u"), "{logged}");
    machine.well(own);
}
