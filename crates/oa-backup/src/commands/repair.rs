//! `oa-backup repair`: moves damaged files out, rebuilds the index, and says what that means for each backup.

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::pg::{self, Settings};
use postgres::Client;

use super::print;
use crate::PROGRAM;
use crate::catalog::{self, Checked};
use oa_repository::{Backup, Damage, ProgressReporter, RepairReport, SpareReport};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Use the secondary repository, [backup.copy]
    #[arg(long)]
    copy: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Repairs what can be repaired. Nothing is deleted: damaged files go to the folder `damaged` of the repository.
pub(crate) fn run(
    config: &Config,
    args: &Args,
    reporter: &ProgressReporter,
) -> Result<u8, Failure> {
    let location = super::location(config, args.copy)?;
    super::check_may_delete(config, args.copy, "repair")?;
    cli::confirm(
        &format!(
            "Take damaged files out of {} (into its folder damaged) and make its index anew? No backup may run meanwhile.",
            location.shown()
        ),
        args.yes,
    )?;
    let healed = location.heal()?;
    let mut text = String::new();
    for file in &healed.put_back {
        text.push_str(&format!("put back from its spare copy: {file}\n"));
    }
    for file in &healed.spares {
        text.push_str(&format!("spare copy made anew: {file}\n"));
    }
    for file in &healed.lost {
        text.push_str(&format!(
            "damaged, without a good spare copy, and left as it is: {file}\n"
        ));
    }
    // Should the rest fail, what was done is known.
    print(&text)?;
    let repository = location.open_recorded(config, reporter)?;
    location.close_to_others();
    let repaired = repository.repair()?;
    record_removed(config, &repaired);
    let mut text = String::new();
    for file in &repaired.taken_out {
        text.push_str(&format!("taken out: {file}\n"));
    }
    if healed == SpareReport::default() && repaired.taken_out.is_empty() {
        text.push_str("no file is damaged; the index was compared with what is there\n");
    }
    let backups = repository.backups()?;
    let damages = repository.check(&backups, false)?;
    // Every file was read: what is not lacking anything now is whole.
    record_checked(config, &backups, &damages);
    let broken = backups.iter().filter(|b| {
        damages
            .iter()
            .any(|d| d.backup.as_deref() == Some(b.id.as_str()))
    });
    let broken: Vec<&str> = broken.map(Backup::short_id).collect();
    if broken.is_empty() {
        text.push_str(&format!("all {} backups are whole\n", backups.len()));
    } else {
        text.push_str(&format!(
            "{} of {} backups are not whole: {}\nnext: oa-backup full, which stores again what the server still has; then oa-backup verify\n",
            broken.len(),
            backups.len(),
            broken.join(", ")
        ));
    }
    print(&text)?;
    Ok(if damages.is_empty() && healed.lost.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}

fn connected(config: &Config) -> Option<Client> {
    let settings = Settings::from_config(config, PROGRAM).ok()?;
    pg::connect(&settings).ok()
}

fn record_checked(config: &Config, backups: &[Backup], damages: &[Damage]) {
    let recorded = connected(config)
        .map(|mut client| catalog::mark_checked(&mut client, backups, damages, Checked::Data));
    if !matches!(recorded, Some(Ok(()))) {
        tracing::warn!(
            "could not record in PostgreSQL which backups are whole now; oa-backup verify --read-data does"
        );
    }
}

/// What was taken out is not missing.
fn record_removed(config: &Config, repaired: &RepairReport) {
    let snapshots = repaired
        .taken_out
        .iter()
        .filter_map(|f| f.strip_prefix("snapshots/"));
    let ids: Vec<&str> = snapshots.collect();
    if ids.is_empty() {
        return;
    }
    let recorded = connected(config).map(|mut client| catalog::mark_removed(&mut client, &ids));
    if !matches!(recorded, Some(Ok(_))) {
        tracing::warn!(
            "could not record in PostgreSQL what was taken out; it will be reported as missing until oa-backup prune --missing"
        );
    }
}
