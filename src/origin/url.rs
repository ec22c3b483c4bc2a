//! How an origin is named.
//!
//! Owns: the text form of an origin, and which texts are refused.
//! Must not know: whether anything answers there.
//! Invariant: an `OriginUrl` holds no secret and none of the characters that separate origins in a URI or in a
//! setting, so that it can be printed and shared as it is; parsing what it prints gives the same origin.
//! Trust: the text may come from a stranger's URI. Threads: pure values.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest text that is looked at.
const MAX_LEN: usize = 1024;
/// What would end a URL within a `bcai://` URI or a list of settings, or begin a part that may be a secret.
const SEPARATORS: &str = "?&#@,\"'<>\\";

/// A text that names no origin: the user's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error(
        "`{0}` is not an origin: expected file:///FOLDER, https://HOST/PREFIX, http://HOST/PREFIX or s3://BUCKET/PREFIX"
    )]
    Malformed(String),
    #[error(
        "the origin must not hold a user, a password or a query: credentials of S3 come from the environment \
         (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), so that the name of an origin can be shared"
    )]
    Secret,
}

/// What kind of place it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Folder(PathBuf),
    /// Static files of an HTTP server, below this URL.
    Web(String),
    Bucket {
        bucket: String,
        prefix: String,
    },
}

/// The name of an origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginUrl {
    text: String,
    place: Place,
}

impl OriginUrl {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether objects can be put there. A server of static files is only read.
    pub fn is_writable(&self) -> bool {
        !matches!(self.place, Place::Web(_))
    }
}

impl fmt::Display for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for OriginUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        // What is refused is quoted only where it can hold no password.
        if text.contains(['@', '?']) {
            return Err(UrlError::Secret);
        }
        let malformed = || UrlError::Malformed(text.chars().take(80).collect());
        let strange = |c: char| c.is_whitespace() || c.is_control() || SEPARATORS.contains(c);
        if text.len() > MAX_LEN || text.contains(strange) {
            return Err(malformed());
        }
        let text = text.trim_end_matches('/');
        let (scheme, rest) = text.split_once("://").ok_or_else(malformed)?;
        if rest.split('/').any(|part| part == "." || part == "..") {
            return Err(malformed());
        }
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let place = match scheme {
            "file" if host.is_empty() && !prefix.is_empty() => Place::Folder(format!("/{prefix}").into()),
            "http" | "https" if !host.is_empty() => Place::Web(text.to_owned()),
            "s3" if !host.is_empty() => Place::Bucket { bucket: host.into(), prefix: prefix.into() },
            _ => return Err(malformed()),
        };
        Ok(Self { text: text.to_owned(), place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_round_trips() {
        for text in
            ["file:///srv/data", "http://h:8000", "https://h/a/b", "s3://bucket", "s3://bucket/some/prefix"]
        {
            let url: OriginUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
            assert_eq!(format!("{text}/").parse::<OriginUrl>().unwrap(), url);
            assert_eq!(url.is_writable(), !text.starts_with("http"));
        }
    }

    #[test]
    fn secrets_and_separators_are_refused_and_not_repeated() {
        for text in ["https://user:hunter2@h/a", "s3://b/p?AWS_SECRET_ACCESS_KEY=hunter2"] {
            let error = text.parse::<OriginUrl>().unwrap_err();
            assert_eq!(error, UrlError::Secret);
            assert!(!error.to_string().contains("hunter2"));
        }
        let long = format!("http://h/{}", "a".repeat(MAX_LEN));
        for text in [
            "",
            "/srv",
            "file://",
            "file:///",
            "file://host/x",
            "ftp://h/x",
            "s3://",
            "http://",
            "http:///x",
            "http://h/a b",
            "http://h/a&b",
            "http://h/a,b",
            "file:///a/../b",
            "s3://b/.",
            &long,
        ] {
            assert!(matches!(text.parse::<OriginUrl>(), Err(UrlError::Malformed(_))), "{text}");
        }
    }
}
