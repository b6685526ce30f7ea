//! `oa-backup repair`: damaged files out, the index made anew, and what that means for each backup.

use oa_core::cli::{self, Failure};
use oa_core::config::Config;
use oa_core::exit;

use super::list::place;
use crate::repository::Bars;

/// Repairs what can be repaired. Nothing is deleted: damaged files go to the folder `damaged` of the repository.
///
/// # Errors
/// When it is not confirmed (77), or files cannot be moved.
pub fn run(config: &Config, second: bool, yes: bool, bars: &Bars) -> Result<u8, Failure> {
    let place = place(config, second)?;
    cli::confirm(
        &format!(
            "Take damaged files out of {} (into its folder damaged) and make its index anew? No backup may run meanwhile.",
            place.shown()
        ),
        yes,
    )?;
    let put_back = place.put_back_spares()?;
    let repository = place.open(bars)?;
    let mut repaired = repository.repair()?;
    repaired.put_back = put_back;
    let mut text = String::new();
    for file in &repaired.put_back {
        text.push_str(&format!("put back from its spare copy: {file}\n"));
    }
    for file in &repaired.taken_out {
        text.push_str(&format!("taken out: {file}\n"));
    }
    if repaired.put_back.is_empty() && repaired.taken_out.is_empty() {
        text.push_str("no file is damaged; the index was compared with what is there\n");
    }
    let backups = repository.backups()?;
    let damages = repository.check(&backups, false)?;
    let broken = backups.iter().filter(|b| {
        damages
            .iter()
            .any(|d| d.backup.as_deref() == Some(b.id.as_str()))
    });
    let broken: Vec<&str> = broken.map(crate::repository::Backup::short_id).collect();
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
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(if damages.is_empty() {
        exit::OK
    } else {
        exit::FAILED
    })
}
