//! The pages' own files, embedded; their names carry a hash of their content.

use std::sync::LazyLock;

use crate::digest::short_hash;

#[derive(Debug)]
pub(crate) struct Asset {
    pub(crate) name: String,
    pub(crate) content_type: &'static str,
    pub(crate) text: &'static str,
}

fn asset(stem: &str, ending: &str, content_type: &'static str, text: &'static str) -> Asset {
    Asset {
        name: format!("{stem}-{}.{ending}", short_hash(text.as_bytes())),
        content_type,
        text,
    }
}

pub(crate) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "page",
        "css",
        "text/css; charset=utf-8",
        include_str!("assets/page.css"),
    )
});
/// What keeps it up to date.
pub(crate) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "page",
        "js",
        "text/javascript; charset=utf-8",
        include_str!("assets/page.js"),
    )
});
pub(crate) static ICON: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "icon",
        "svg",
        "image/svg+xml",
        include_str!("assets/icon.svg"),
    )
});

/// The same while what is shown may not be true any more.
pub(crate) static ICON_LOST: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "icon-lost",
        "svg",
        "image/svg+xml",
        include_str!("assets/icon-lost.svg"),
    )
});

pub(crate) fn named(name: &str) -> Option<&'static Asset> {
    [&*STYLE, &*SCRIPT, &*ICON, &*ICON_LOST]
        .into_iter()
        .find(|a| a.name == name)
}
