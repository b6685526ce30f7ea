//! Which block of the pages is run when, and why some are not.

/// What is done with a block that is not run here.
pub(crate) enum Elsewhere {
    /// This test reads the page, or gives the same commands.
    By(&'static str),
    /// Nobody runs it in CI.
    Not(&'static str),
}
pub(crate) use Elsewhere::{By, Not};

const INSTALL: Elsewhere = By("crates/oa-testkit/tests/install.rs");
const DISASTER: Elsewhere = By("crates/oa-restore/tests/disaster.rs");
const PACKAGE: Elsewhere = By("scripts/packaging/test");
const SYSTEM: Elsewhere = Not("installs packages of the system");

/// Page, first line of the block, and why it is in neither story.
pub(crate) const ELSEWHERE: &[(&str, &str, Elsewhere)] = &[
    (
        "README.md",
        "scripts/demo",
        Not("builds all programs once more; run by hand"),
    ),
    ("README.md", "sudo apt-get install ./oa", PACKAGE),
    ("README.md", "cargo build --release", INSTALL),
    ("README.zh-CN.md", "sudo apt-get install ./oa", PACKAGE),
    ("README.zh-CN.md", "scripts/demo", Not("as in README.md")),
    ("README.zh-CN.md", "cargo build --release", INSTALL),
    (
        "docs/CONTRIBUTING.md",
        "scripts/setup --tests",
        Not("is what runs this test"),
    ),
    (
        "docs/alerts.md",
        "sudo systemctl enable --now oa-alert-listen",
        Not("needs a running systemd"),
    ),
    (
        "docs/backup.md",
        "sudo systemctl enable --now oa-backup-stream",
        Not("needs a running systemd"),
    ),
    (
        "docs/development.md",
        "scripts/chaos ",
        Not("takes longer than CI may; tests/chaos.rs runs a few rounds"),
    ),
    (
        "docs/scale-out.md",
        "kubectl create configmap",
        Not("needs a cluster; tests/docs.rs checks the manifests"),
    ),
    (
        "docs/development.md",
        "scripts/setup",
        Not("is what runs this test, and what takes longer than CI may"),
    ),
    ("docs/disaster.md", "apt-get install postgresql-15", SYSTEM),
    (
        "docs/disaster.md",
        "export DATABASE_URL='postgresql://postgres:PASSWORD@",
        DISASTER,
    ),
    ("docs/disaster.md", "apt-get install restic", SYSTEM),
    (
        "docs/disaster.md",
        "export RESTIC_REPOSITORY=/mnt/backup/oa",
        DISASTER,
    ),
    ("docs/disaster.md", "restic snapshots --tag oa", DISASTER),
    (
        "docs/disaster.md",
        "restic restore latest --tag oa,physical,full",
        DISASTER,
    ),
    ("docs/disaster.md", "cp \"$DIR\"/log/*", DISASTER),
    (
        "docs/disaster.md",
        "for link in \"$DIR\"/data/pg_tblspc/*; do",
        DISASTER,
    ),
    ("docs/disaster.md", "cd \"$DIR/data\"", DISASTER),
    ("docs/disaster.md", "chown -R postgres: \"$DIR\"", DISASTER),
    (
        "docs/disaster.md",
        "runuser -u postgres -- psql -h /tmp",
        DISASTER,
    ),
    (
        "docs/disaster.md",
        "restic restore latest --tag oa,logical",
        DISASTER,
    ),
    ("docs/install.md", "sudo apt-get install ./oa", PACKAGE),
    (
        "docs/install.md",
        "sha256sum --check",
        Not("needs a package that was published"),
    ),
    ("docs/install.md", "cargo build --release", INSTALL),
    ("docs/install.md", "sudo oa-setup", PACKAGE),
    ("docs/install.md", "export OA_CHANNEL_URL=", PACKAGE),
    ("docs/install.md", "export OA_S3_ACCESS_KEY=", PACKAGE),
    ("docs/install.md", "sudo oa-setup --timers none", PACKAGE),
    ("docs/install.md", "sudo apt-get remove oa", PACKAGE),
    (
        "docs/install.md",
        "scripts/package",
        Not("builds all programs for release, and needs docker"),
    ),
    (
        "docs/migration.md",
        "oa-migrate run app.db --rehearse",
        By("crates/oa-migrate/tests/before.rs"),
    ),
    (
        "docs/migration.md",
        "python manage.py migrate",
        By("crates/oa-migrate/tests/frameworks.rs"),
    ),
    (
        "docs/migration.md",
        "alembic upgrade head",
        By("crates/oa-migrate/tests/frameworks.rs"),
    ),
    (
        "docs/migration.md",
        "npx prisma migrate deploy",
        Not("Prisma's engines are downloaded from a place of their own"),
    ),
    (
        "docs/migration.md",
        "oa-migrate sync /new/place/option_tracker.db",
        By("crates/oa-migrate/tests/which_source.rs"),
    ),
    (
        "docs/scale-out.md",
        "for n in a b; do",
        Not("needs namespaces of process ids; due.rs lets two machines share the work"),
    ),
    (
        "docs/zh/disaster.md",
        "apt-get install postgresql-15",
        SYSTEM,
    ),
    (
        "docs/zh/disaster.md",
        "mkdir -p /etc/oa",
        Not("as in docs/disaster.md"),
    ),
    (
        "docs/zh/quick-start.md",
        "sudo apt-get install ./oa",
        PACKAGE,
    ),
    ("docs/zh/quick-start.md", "cargo build --release", INSTALL),
    ("docs/zh/quick-start.md", "sudo oa-setup", PACKAGE),
    ("docs/zh/quick-start.md", "export OA_CHANNEL_URL=", PACKAGE),
];

pub(crate) enum Step {
    /// A page's block that begins so.
    Run(&'static str, &'static str),
    /// What the pages say in words, or take for granted.
    Do(&'static str),
    /// From now on the pages' times in the past mean this time.
    Then,
    /// The machine is gone.
    ServerGone,
}
pub(crate) use Step::{Do, Run, ServerGone, Then};

/// Migrated, collected, looked at, and back to SQLite.
pub(crate) const COLLECTED: &[Step] = &[
    Run("docs/migration.md", "oa-migrate init"),
    Run("docs/migration.md", "# 1. Move what is there."),
    Run(
        "docs/legacy-service.md",
        "oa-migrate verify option_tracker.db",
    ),
    Run("docs/install.md", "sudo -u oa oa-migrate init"),
    Run("docs/zh/quick-start.md", "sudo -u oa oa-migrate init"),
    Do("oa-crawl run zhihui-full-view --date 2025-12-01"),
    Run("docs/new-source.md", "oa-crawl sources export ./sources"),
    Run("docs/new-source.md", "oa-crawl new "),
    Do("cp saved/my-quotes.toml . && cp saved/answer.json saved-answer.json"),
    Run("docs/new-source.md", "oa-crawl try my-quotes.toml"),
    Do("cp my-quotes.toml /etc/oa/sources/"),
    Run("docs/new-source.md", "oa-crawl check"),
    Do("oa-crawl run my-quotes --date 2025-12-01"),
    Run("docs/new-source.md", "oa-crawl replay my-quotes"),
    Run("docs/exec.md", "oa-crawl exec --task fangqi-daily"),
    Run("docs/exec.md", "psql -c"),
    Run("docs/migration.md", "0  18  *  *  1-5  oa-crawl exec"),
    Do("! oa-crawl run zhihui-reports --date 2025-12-01"),
    Run("docs/alerts.md", "* * * * *  oa-alert check"),
    Run("docs/zh/alerts.md", "sudo -u oa oa-alert check-config"),
    Run("docs/alerts.md", "oa-alert check-config"),
    // As the first `run --due` after `oa-crawl enable rongda` does.
    Do(
        "psql -c \"INSERT INTO oa.tasks (name, tool, title) VALUES ('rongda-positions', 'oa-crawl', '持仓'), ('rongda-structure', 'oa-crawl', '结构')\"",
    ),
    Run("docs/alerts.md", "oa-alert list --open"),
    Run("docs/zh/alerts.md", "sudo -u oa oa-alert list --open"),
    Run(
        "docs/daily-report.md",
        "*/5 * * * *  oa-report daily --send --cron",
    ),
    Run("docs/daily-report.md", "oa-report daily"),
    Run(
        "README.md",
        "sudo -u oa oa-crawl run zhihui-full-view --format json",
    ),
    Run(
        "README.zh-CN.md",
        "sudo -u oa oa-crawl run zhihui-full-view --format json",
    ),
    Then,
    Run("docs/report.md", "oa-report serve"),
    Run("docs/report.md", "oa-report health --fail-on warning"),
    Run("docs/report.md", "oa-report days"),
    Run("docs/report.md", "oa-report as-of market_full_view"),
    Run("docs/report.md", "oa-report token wang"),
    Run("docs/report.md", "sudo -u oa oa-report doctor"),
    Run("docs/troubleshooting.md", "sudo -u oa oa-report doctor"),
    Run("docs/zh/troubleshooting.md", "sudo -u oa oa-report doctor"),
    Run("docs/zh/page.md", "sudo -u oa oa-report serve"),
    Run("docs/zh/page.md", "oa-report token wang"),
    Run("docs/zh/page.md", "sudo -u oa oa-report health"),
    Run("docs/migration.md", "# 1. Stop the new crawlers"),
];

/// Backed up, restored, lost and brought back.
pub(crate) const RESTORED: &[Step] = &[
    Do("oa-migrate init && oa-crawl run zhihui-full-view --date 2025-12-01"),
    Run("docs/backup.md", "oa-backup init"),
    Then,
    Run("docs/backup.md", "0   2 * * *  oa-backup full --cron"),
    Run("docs/zh/backup.md", "sudo -u oa oa-backup init"),
    Run("docs/zh/backup.md", "sudo -u oa oa-backup copy"),
    Run("docs/zh/quick-start.md", "sudo -u oa oa-report doctor"),
    Run("docs/restore.md", "oa-restore plan --to"),
    Run("docs/restore.md", "0 5 1 * * oa-restore drill --cron"),
    Run("docs/zh/backup.md", "sudo -u oa oa-restore plan --to"),
    Run(
        "docs/zh/backup.md",
        "sudo -u oa oa-restore table option_flows --to \"10 min ago\"",
    ),
    Run(
        "docs/zh/backup.md",
        "sudo -u oa oa-restore table option_flows --to \"2026",
    ),
    Run("docs/zh/backup.md", "sudo -u oa oa-restore database --to"),
    Run("docs/zh/backup.md", "sudo -u oa oa-restore drill --yes"),
    Do("mkdir -p /mnt/backup && mv /var/backups/oa /mnt/backup/oa && rm -r /etc/oa /var/lib/oa"),
    ServerGone,
    Run("docs/disaster.md", "mkdir -p /etc/oa"),
    Run("docs/disaster.md", "oa-backup list"),
    Run("docs/disaster.md", "oa-restore cluster --to latest"),
    Run("docs/disaster.md", "runuser -u postgres -- psql -p 5432"),
    Run("docs/disaster.md", "oa-restore files --to latest"),
    Run("docs/zh/disaster.md", "oa-backup list"),
    Run("docs/zh/disaster.md", "oa-restore cluster --to latest"),
    Run("docs/zh/disaster.md", "runuser -u postgres -- psql -p 5432"),
    Run("docs/zh/disaster.md", "oa-restore files --to latest"),
    // The restored configuration, with what is elsewhere now.
    Do(
        "cp -a /srv/restored-files/etc/oa/. /etc/oa/ && sed -i 's|/var/backups/oa|/mnt/backup/oa|' /etc/oa/oa.toml",
    ),
    Do("sed -i \"s|:[0-9]*/oa$|:$RESTORED_PORT/oa|\" /etc/oa/.env"),
    Run("docs/zh/disaster.md", "oa-backup full"),
];
