//! The two languages of what people read.

use oa_core::app::config::Locale;

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

    /// The one of two things that is in this language.
    pub(crate) fn say<T>(self, zh: T, en: T) -> T {
        match self.0 {
            Locale::Zh => zh,
            Locale::En => en,
        }
    }
}
