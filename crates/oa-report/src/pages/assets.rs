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

/// So that a phone keeps the page as an app.
pub(crate) static MANIFEST: LazyLock<Asset> = LazyLock::new(|| {
    let manifest = serde_json::json!({
        "name": "oa", "short_name": "oa", "start_url": "../admin/", "scope": "../", "display": "standalone",
        "background_color": "#f4f6f7", "theme_color": "#0f5c6e",
        "icons": [{"src": ICON.name, "sizes": "any", "type": "image/svg+xml", "purpose": "any"}],
    });
    // Once, for as long as the program runs.
    let text = Box::leak(manifest.to_string().into_boxed_str());
    asset("oa", "webmanifest", "application/manifest+json", text)
});

pub(crate) fn named(name: &str) -> Option<&'static Asset> {
    [&*STYLE, &*SCRIPT, &*ICON, &*ICON_LOST, &*MANIFEST]
        .into_iter()
        .find(|a| a.name == name)
}
