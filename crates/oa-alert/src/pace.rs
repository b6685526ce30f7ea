//! How fast a robot is sent messages: below its own limit, whoever sends. A few go at once; when more come, they are gathered for a while
//! and go as one message, which a person can read and a robot takes.

use std::time::Duration;

use oa_core::app::config::ChannelKind;

/// So many messages within a minute go one by one and at once. More are a storm.
const BURST: usize = 5;
/// Seconds over which a robot's minute is counted: its clock and the way there take their time.
const MINUTE: f64 = 62.0;
/// Messages a minute that DingTalk and WeCom are sent; they take 20.
const ROBOT: u32 = 18;
/// Messages a minute that Feishu is sent; it takes 100 of a robot, 1,000 of an application, and 5 a second in a group.
const FEISHU: u32 = 80;
/// Messages a second that Feishu is sent.
const FEISHU_SECOND: (usize, f64) = (4, 1.2);

/// How fast a channel is sent messages, and whether several may go as one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    per_minute: Option<usize>,
    per_second: Option<(usize, f64)>,
    /// Several alerts may be one message.
    pub(crate) digests: bool,
    gather: Duration,
}

impl Pace {
    /// `per_minute`: that of the configuration; `gather`: `group_wait`.
    pub(crate) fn new(
        kind: ChannelKind,
        per_minute: Option<u32>,
        digests: bool,
        gather: Duration,
    ) -> Self {
        let own = match kind {
            ChannelKind::Dingtalk
            | ChannelKind::DingtalkApp
            | ChannelKind::Wecom
            | ChannelKind::WecomApp => Some(ROBOT),
            ChannelKind::Feishu | ChannelKind::FeishuApp => Some(FEISHU),
            _ => None,
        };
        let per_minute = per_minute.or(own);
        Self {
            per_minute: per_minute.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            per_second: matches!(kind, ChannelKind::Feishu | ChannelKind::FeishuApp)
                .then_some(FEISHU_SECOND),
            digests,
            gather,
        }
    }

    /// Most messages a minute.
    pub(crate) fn per_minute(&self) -> Option<usize> {
        self.per_minute
    }

    /// Whether what waits goes as one message, because the channel had many of late. `ages`: seconds since each of the last messages.
    pub(crate) fn is_storm(&self, ages: &[f64]) -> bool {
        self.digests && !self.gather.is_zero() && within(ages, 60.0) >= BURST
    }

    /// For how long nothing is sent. `again`: it is a part of what was just refused together, which waits for nothing else.
    pub(crate) fn wait(&self, ages: &[f64], again: bool) -> Duration {
        let mut sorted = ages.to_vec();
        sorted.sort_by(f64::total_cmp);
        let minute = self.per_minute.map(|n| (n, MINUTE));
        let full = minute
            .into_iter()
            .chain(self.per_second)
            .map(|(most, span)| {
                let oldest = most.checked_sub(1).and_then(|n| sorted.get(n));
                oldest.map_or(0.0, |age| span - age)
            });
        let gathers = (self.is_storm(ages) && !again).then(|| {
            let newest = sorted.first().copied().unwrap_or(f64::MAX);
            self.gather.as_secs_f64() - newest
        });
        let longest = full.chain(gathers).fold(0.0, f64::max);
        Duration::from_secs_f64(longest)
    }
}

fn within(ages: &[f64], span: f64) -> usize {
    ages.iter().filter(|age| **age < span).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(pace: &Pace, ages: &[f64]) -> f64 {
        pace.wait(ages, false).as_secs_f64()
    }

    #[test]
    fn a_few_go_at_once_and_more_are_gathered_below_the_robots_limit() {
        let ten = Duration::from_secs(10);
        let ding = Pace::new(ChannelKind::Dingtalk, None, true, ten);
        assert_eq!(seconds(&ding, &[]), 0.0);
        assert_eq!(seconds(&ding, &[0.1; 4]), 0.0);
        assert_eq!(seconds(&ding, &[3.0, 4.0, 4.0, 4.0, 4.0]), 7.0);
        assert_eq!(ding.wait(&[3.0; 5], true), Duration::ZERO);
        assert_eq!(seconds(&ding, &[30.0; 5]), 0.0);
        let many: Vec<f64> = (1..=18).map(|n| f64::from(n) + 20.0).collect();
        assert_eq!(seconds(&ding, &many), 62.0 - 38.0);
        let own = Pace::new(ChannelKind::Wecom, Some(2), true, Duration::ZERO);
        assert_eq!(seconds(&own, &[1.0]), 0.0);
        assert_eq!(seconds(&own, &[1.0, 60.0]), 2.0);
        let feishu = Pace::new(ChannelKind::Feishu, None, true, Duration::ZERO);
        assert!(seconds(&feishu, &[0.5; 4]) > 0.5);
        assert_eq!(seconds(&feishu, &[2.0; 40]), 0.0);
        let hook = Pace::new(ChannelKind::Webhook, None, false, ten);
        assert_eq!(
            seconds(&hook, &[0.1; 100]),
            0.0,
            "each is an event of its own"
        );
    }
}
