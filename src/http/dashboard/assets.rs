//! Style sheet, script and icon: in the program, packed once, under a path that changes whenever they do.

use std::io::Write as _;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::http::App;

/// One file, plain and packed.
struct Asset {
    name: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    packed: Vec<u8>,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        asset(
            "style.css",
            "text/css; charset=utf-8",
            include_bytes!("../../../assets/dashboard/style.css"),
        ),
        asset(
            "app.js",
            "text/javascript; charset=utf-8",
            include_bytes!("../../../assets/dashboard/app.js"),
        ),
        asset(
            "icon.svg",
            "image/svg+xml",
            include_bytes!("../../../assets/dashboard/icon.svg"),
        ),
    ]
});

/// Where pages find them: the directory is named by what is in it.
static BASE: LazyLock<String> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    for asset in &*ASSETS {
        digest.update(Sha256::digest(asset.plain));
    }
    format!("/assets/{}", &hex::encode(digest.finalize())[..16])
});

/// The path that the names of the assets are appended to, after a slash.
pub(super) fn base() -> &'static str {
    &BASE
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/assets/{hash}/{name}", get(serve))
        .method_not_allowed_fallback(crate::http::method_not_allowed)
}

async fn serve(Path((hash, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // A page of another version finds what there is now, which is better than nothing, but not under that name for ever.
    let caching = if base().ends_with(&format!("/{hash}")) {
        "public, max-age=31536000, immutable"
    } else {
        "no-store"
    };
    let common = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, caching),
        (header::VARY, "accept-encoding"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ];
    if takes_gzip(&headers) {
        let packed = [(header::CONTENT_ENCODING, "gzip")];
        return (common, packed, asset.packed.as_slice()).into_response();
    }
    (common, asset.plain).into_response()
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| {
        accepted.split(',').any(|coding| {
            let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim().eq_ignore_ascii_case("gzip")
                && !matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
        })
    })
}

fn asset(name: &'static str, kind: &'static str, plain: &'static [u8]) -> Asset {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(plain).expect("memory takes everything");
    Asset {
        name,
        kind,
        plain,
        packed: packer.finish().expect("memory takes everything"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_page_loads_is_small() {
        let packed: usize = ASSETS.iter().map(|asset| asset.packed.len()).sum();
        assert!(packed < 40_000, "{packed} bytes");
    }

    #[test]
    fn packed_bytes_go_only_to_those_who_take_them() {
        let takes = |accepted: &str| {
            let value = accepted.parse().unwrap();
            takes_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]))
        };
        assert!(takes("gzip, deflate, br") && takes("br, GZIP;q=0.5"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("x-gzip-like"));
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
