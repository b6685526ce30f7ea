//! Links in messages that act: signed with a key of the configuration, and valid for a limited time.
//!
//! A link says what it does, to which alert, and in which channel it was sent; whoever has it may do that and nothing else. It is
//! `VERSION ACTION ALERT EXPIRES CHANNEL MAC`, in base64 for addresses; the MAC is the first 16 bytes of HMAC-SHA256. That a link works
//! once is for whoever keeps a record of those that were used ([`Link::hash`]).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::secrets::Secret;

const VERSION: u8 = 1;
/// Before the channel's name: version, action, alert, time.
const HEAD: usize = 1 + 1 + 16 + 8;
const MAC: usize = 16;
/// Longer ones are no link.
const LONGEST: usize = 512;
/// Fewer bytes of a key can be tried through.
pub const SHORTEST_KEY: usize = 16;

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkAction {
    /// Acknowledges the incident.
    Acknowledge,
    /// Silences it for two hours.
    Silence,
    /// Collects the source once more.
    Run,
    /// Shows the run.
    Log,
}

impl LinkAction {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 4] = [Self::Acknowledge, Self::Silence, Self::Run, Self::Log];

    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledge",
            Self::Silence => "silence",
            Self::Run => "run",
            Self::Log => "log",
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Acknowledge => b'a',
            Self::Silence => b's',
            Self::Run => b'r',
            Self::Log => b'l',
        }
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What it does.
    pub action: LinkAction,
    /// The alert whose message it stood in.
    pub alert: Uuid,
    /// The channel that message went to.
    pub channel: String,
    /// Until when it works (UTC).
    pub expires: DateTime<Utc>,
}

/// Why a link does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It was changed, or signed with another key.
    #[error("the link is not one of this service's, or it was cut off")]
    Forged,
    /// Its time is over.
    #[error("the link has expired")]
    Expired,
}

/// The key.
#[derive(Debug, Clone)]
pub struct LinkKey(Secret);

impl LinkKey {
    /// A key of at least [`SHORTEST_KEY`] bytes.
    #[must_use]
    pub fn new(key: Secret) -> Option<Self> {
        (key.expose().len() >= SHORTEST_KEY).then_some(Self(key))
    }

    fn mac(&self, bytes: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose().as_bytes()).ok()?;
        // The key may serve others as well.
        mac.update(b"oa link\n");
        mac.update(bytes);
        Some(mac)
    }

    /// The last part of a link's address.
    #[must_use]
    pub fn sign(&self, link: &Link) -> Option<String> {
        let mut bytes = vec![VERSION, link.action.byte()];
        bytes.extend(link.alert.as_bytes());
        bytes.extend(link.expires.timestamp().to_be_bytes());
        bytes.extend(link.channel.as_bytes());
        let mac = self.mac(&bytes)?.finalize().into_bytes();
        bytes.extend(&mac[..MAC]);
        Some(URL_SAFE_NO_PAD.encode(bytes)).filter(|text| text.len() <= LONGEST)
    }

    /// The last part of a link's address, from what [`unsigned`] left of it.
    #[must_use]
    pub fn sign_again(&self, unsigned: &str) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(unsigned).ok()?;
        let mac = self.mac(&bytes)?.finalize().into_bytes();
        bytes.extend(&mac[..MAC]);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The link of an address.
    ///
    /// # Errors
    /// When it is none, or its time is over.
    pub fn verify(&self, text: &str, now: DateTime<Utc>) -> Result<Link, LinkError> {
        let bytes = Some(text).filter(|t| t.len() <= LONGEST);
        let bytes = bytes.and_then(|t| URL_SAFE_NO_PAD.decode(t).ok());
        let bytes = bytes.ok_or(LinkError::Forged)?;
        let end = bytes.len().checked_sub(MAC).filter(|end| *end >= HEAD);
        let (said, mac) = bytes.split_at(end.ok_or(LinkError::Forged)?);
        let right = self.mac(said).ok_or(LinkError::Forged)?;
        right
            .verify_truncated_left(mac)
            .map_err(|_| LinkError::Forged)?;
        Self::read(said, now)
    }

    /// What is signed is ours.
    fn read(said: &[u8], now: DateTime<Utc>) -> Result<Link, LinkError> {
        let (head, channel) = said.split_at(HEAD);
        let mut seconds = [0; 8];
        seconds.copy_from_slice(&head[18..]);
        let link = Link {
            action: LinkAction::ALL
                .into_iter()
                .find(|a| a.byte() == head[1] && head[0] == VERSION)
                .ok_or(LinkError::Forged)?,
            alert: Uuid::from_slice(&head[2..18]).map_err(|_| LinkError::Forged)?,
            channel: String::from_utf8(channel.to_vec()).map_err(|_| LinkError::Forged)?,
            expires: DateTime::from_timestamp(i64::from_be_bytes(seconds), 0)
                .ok_or(LinkError::Forged)?,
        };
        match now < link.expires {
            true => Ok(link),
            false => Err(LinkError::Expired),
        }
    }
}

/// What a link says, without its signature: this does nothing, and may be kept where others read it. `None` for what is no link.
#[must_use]
pub fn unsigned(signed: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(signed).ok()?;
    let end = bytes.len().checked_sub(MAC).filter(|end| *end >= HEAD)?;
    Some(URL_SAFE_NO_PAD.encode(&bytes[..end]))
}

impl Link {
    /// Under what it is noted that it was used: not the link itself, which would work once more in another place. A message that is sent
    /// twice has two links to one act, which is done once.
    #[must_use]
    pub fn hash(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update([self.action.byte()]);
        hash.update(self.alert.as_bytes());
        hash.update(self.channel.as_bytes());
        hash.finalize().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> LinkKey {
        LinkKey::new(Secret::new(text.to_owned())).unwrap()
    }

    fn link() -> Link {
        Link {
            action: LinkAction::Silence,
            alert: Uuid::now_v7(),
            channel: "值班 ops".to_owned(),
            expires: DateTime::from_timestamp(4_000_000_000, 0).unwrap(),
        }
    }

    #[test]
    fn a_link_says_what_was_signed_until_its_time() {
        let (key, link) = (key("0123456789abcdef"), link());
        let text = key.sign(&link).unwrap();
        assert!(
            text.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        );
        assert_eq!(key.verify(&text, Utc::now()), Ok(link.clone()));
        let late = link.expires + TimeDelta::seconds(1);
        assert_eq!(key.verify(&text, late), Err(LinkError::Expired));
        let other = LinkKey::new(Secret::new("0123456789abcdeF".to_owned())).unwrap();
        assert_eq!(other.verify(&text, Utc::now()), Err(LinkError::Forged));
        assert!(LinkKey::new(Secret::new("short".to_owned())).is_none());
        let kept = unsigned(&text).unwrap();
        assert_eq!(key.verify(&kept, Utc::now()), Err(LinkError::Forged));
        assert_eq!(key.sign_again(&kept), Some(text));
        assert_eq!(unsigned("AWE"), None);
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_refused(at in 0usize..200, with in any::<u8>(), junk in "\\PC{0,80}") {
            let (key, now) = (key("0123456789abcdef"), Utc::now());
            let text = key.sign(&link()).unwrap();
            let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != with);
            bytes[at] = with;
            let changed = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert_eq!(key.verify(&changed, now), Err(LinkError::Forged));
            prop_assert_eq!(key.verify(&text[..at], now), Err(LinkError::Forged));
            prop_assert_eq!(key.verify(&junk, now), Err(LinkError::Forged));
        }
    }
}
