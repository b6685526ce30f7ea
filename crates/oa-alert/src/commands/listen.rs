//! `oa-alert listen`: receives the buttons that people press, until it is stopped.

use oa_core::app::cli::{Busy, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::supervise::install_stop_signal;
use oa_core::journal::Recorder;

use super::{channels, wording};
use crate::PROGRAM;
use crate::channels::Channel;
use crate::listen::{self, Setup};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// 78 when there is nothing to listen for; 77 when it runs already on this machine.
pub(crate) fn run(config: &Config, _: &Args) -> Result<u8, Failure> {
    let nothing = |why: &str| Failure::new(exit::CONFIG, anyhow::anyhow!("{why}"));
    let (mut usable, broken) = channels(config);
    usable.retain(Channel::has_buttons);
    if usable.is_empty() {
        return Err(nothing(match broken {
            true => "no channel with buttons can be used; see oa-alert check-config",
            false => {
                "there is nothing to listen for: no channel of [[alert.channels]] has kind = \"feishu_app\" or \"dingtalk_app\""
            }
        }));
    }
    let Some(key) = config.link_key()? else {
        return Err(nothing(
            "there is nothing to listen for: without link_key in [report] messages have no buttons",
        ));
    };
    let recorder = Recorder::open(config, PROGRAM)?;
    let Some(_alone) = recorder.state().try_lock("listen")? else {
        return Err(Busy("oa-alert listen runs already on this machine".to_owned()).into());
    };
    let stop = install_stop_signal().map_err(anyhow::Error::from)?;
    let ended_well = listen::run(&Setup {
        config,
        channels: usable,
        key,
        wording: wording(config),
        host: recorder.host().to_owned(),
        state: recorder.state().clone(),
        stop,
    })?;
    match ended_well {
        true => Ok(exit::OK),
        false => Err(Failure::new(
            exit::FAILED,
            anyhow::anyhow!("a part of it ended by a mistake of this program; start it again"),
        )),
    }
}
