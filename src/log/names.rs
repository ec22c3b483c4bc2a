//! What may be called what: dataset names, labels of versions and tags, and the reason of a withdrawal.
//!
//! Owns: the three bounded string types and their rules. Must not know: what is already taken.
//! Invariant: a value of these types obeys its rule, so that a name is always a safe relative path, fits a URI
//! without escaping, and prints on one line.
//! Trust: decoding checks foreign bytes by the same rules as parsing. Threads: pure values.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use minicbor::{Decoder, Encoder, decode, encode};

/// Longest dataset name, in bytes.
pub const MAX_NAME_LEN: usize = 128;
/// Longest version or tag, in bytes.
pub const MAX_LABEL_LEN: usize = 64;
/// Longest reason given for a withdrawal, in bytes.
pub const MAX_REASON_LEN: usize = 256;
/// The label that always follows the newest version that is not withdrawn. Nobody can publish or set it.
pub const LATEST: &str = "latest";

/// A name that breaks its rule: the user's mistake, or a peer's junk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "`{0}` is not a dataset name: use 1 to {MAX_NAME_LEN} of a-z 0-9 . _ - and / between parts, each part \
         beginning with a letter or digit, such as `photos` or `team/imagenet`"
    )]
    Name(String),
    #[error(
        "`{0}` is not a version or tag: use 1 to {MAX_LABEL_LEN} of A-Z a-z 0-9 . _ -, beginning with a letter or \
         digit, such as `v1` or `2026-11-21`"
    )]
    Label(String),
    #[error(
        "`latest` always follows the newest version and cannot be published or set; choose another label"
    )]
    Latest,
    #[error("`{0}` looks like a snapshot id and cannot be a version or tag; choose a shorter label")]
    LabelIsId(String),
    #[error("a reason is one line of 1 to {MAX_REASON_LEN} bytes without control or invisible characters")]
    Reason,
}

/// At most 80 characters of foreign text, without deceptive ones, for an error message.
fn shown(text: &str) -> String {
    text.chars().take(80).map(|c| if is_deceptive(c) { '?' } else { c }).collect()
}

fn is_part(part: &str, allowed: fn(u8) -> bool) -> bool {
    let bytes = part.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|&b| allowed(b) || matches!(b, b'.' | b'_' | b'-'))
}

fn check_name(text: &str) -> Result<(), NameError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ok = text.len() <= MAX_NAME_LEN && text.split('/').all(|part| is_part(part, allowed));
    if ok { Ok(()) } else { Err(NameError::Name(shown(text))) }
}

fn check_label(text: &str) -> Result<(), NameError> {
    if text.len() > MAX_LABEL_LEN || !is_part(text, |b| b.is_ascii_alphanumeric()) {
        return Err(NameError::Label(shown(text)));
    }
    if text == LATEST {
        return Err(NameError::Latest);
    }
    if text.len() == 2 * crate::id::ID_LEN && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(NameError::LabelIsId(text.to_owned()));
    }
    Ok(())
}

/// Characters that make a terminal show another text than was written: controls, marks without width, and those that
/// turn the direction of reading.
fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn check_reason(text: &str) -> Result<(), NameError> {
    let ok = (1..=MAX_REASON_LEN).contains(&text.len()) && !text.chars().any(is_deceptive);
    if ok { Ok(()) } else { Err(NameError::Reason) }
}

macro_rules! checked_strings {
    ($($(#[$doc:meta])* $name:ident => $check:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text).map(|()| Self(text.into()))
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                d.str()?.parse().map_err(decode::Error::message)
            }
        }
    )*};
}

checked_strings! {
    /// Name of a dataset: lower-case parts joined by `/`.
    Name => check_name,
    /// Name of a version or of a tag within a dataset; never `latest`, never 64 hex digits.
    Label => check_label,
    /// Why a version was withdrawn, in the words of who did it.
    Reason => check_reason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_is_accepted() {
        for name in ["photos", "team/imagenet", "a", "0", "a.b_c-d/e2", &"n".repeat(128)] {
            assert_eq!(name.parse::<Name>().map(|n| n.to_string()), Ok(name.to_owned()));
        }
        for label in ["v1", "2026-11-21", "1.0.0-RC1", "A_b", "7", "latest2", "Latest"] {
            assert_eq!(label.parse::<Label>().map(|l| l.to_string()), Ok(label.to_owned()));
        }
        assert!("déjà publié, with a typo".parse::<Reason>().is_ok());
    }

    #[test]
    fn what_could_escape_or_confuse_is_refused() {
        let long = "n".repeat(129);
        for name in
            ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "-a", "A", "a b", "a@b", "é", "a\0", &long]
        {
            assert!(matches!(name.parse::<Name>(), Err(NameError::Name(_))), "{name:?}");
        }
        for label in ["", "a/b", ".", "..", "-v", "v 1", "v@1", "v\n", &"v".repeat(65)] {
            assert!(matches!(label.parse::<Label>(), Err(NameError::Label(_))), "{label:?}");
        }
        assert_eq!("latest".parse::<Label>(), Err(NameError::Latest));
        assert!(matches!("0aF4".repeat(16).parse::<Label>(), Err(NameError::LabelIsId(_))));
        for reason in ["", "two\nlines", "\u{1b}[31m", "\u{202e}evil", &"r".repeat(257)] {
            assert_eq!(reason.parse::<Reason>(), Err(NameError::Reason), "{reason:?}");
        }
    }
}
