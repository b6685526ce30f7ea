//! The pages' own files, embedded; their names carry a hash of their content.

use std::sync::LazyLock;

use crate::server::answer::hash;

/// One file.
#[derive(Debug)]
pub struct Asset {
    /// Its name.
    pub name: String,
    /// Its content type.
    pub content_type: &'static str,
    /// Its content.
    pub text: &'static str,
}

fn asset(stem: &str, ending: &str, content_type: &'static str, text: &'static str) -> Asset {
    Asset {
        name: format!("{stem}-{}.{ending}", hash(text.as_bytes())),
        content_type,
        text,
    }
}

/// How it looks.
pub static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "page",
        "css",
        "text/css; charset=utf-8",
        include_str!("assets/page.css"),
    )
});
/// What keeps it up to date.
pub static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "page",
        "js",
        "text/javascript; charset=utf-8",
        include_str!("assets/page.js"),
    )
});
/// Its picture in the browser's tab.
pub static ICON: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "icon",
        "svg",
        "image/svg+xml",
        include_str!("assets/icon.svg"),
    )
});

/// The same while what is shown may not be true any more.
pub static ICON_LOST: LazyLock<Asset> = LazyLock::new(|| {
    asset(
        "icon-lost",
        "svg",
        "image/svg+xml",
        include_str!("assets/icon-lost.svg"),
    )
});

/// The file of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Asset> {
    [&*STYLE, &*SCRIPT, &*ICON, &*ICON_LOST]
        .into_iter()
        .find(|a| a.name == name)
}
