//! The two languages of what people read.

use chrono_tz::Tz;
use oa_core::app::config::{Config, Locale};
use oa_wording::Wording;

/// The language of a page or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lang(pub(crate) Locale);

impl From<Locale> for Lang {
    fn from(locale: Locale) -> Self {
        Self(locale)
    }
}

impl Lang {
    pub(crate) fn from_code(code: &str) -> Option<Self> {
        match code {
            "zh" => Some(Self(Locale::Zh)),
            "en" => Some(Self(Locale::En)),
            _ => None,
        }
    }

    pub(crate) fn code(self) -> &'static str {
        self.say("zh", "en")
    }

    /// How events are worded in this language.
    pub(crate) fn wording(self, timezone: Tz) -> Wording {
        Wording {
            locale: self.0,
            timezone,
        }
    }

    /// The one of two things that is in this language.
    pub(crate) fn say<T>(self, zh: T, en: T) -> T {
        match self.0 {
            Locale::Zh => zh,
            Locale::En => en,
        }
    }
}

/// How events are worded by the configuration.
pub(crate) fn wording(config: &Config) -> Wording {
    Lang(config.locale).wording(config.timezone)
}
