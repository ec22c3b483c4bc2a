//! Which files of a snapshot somebody means: patterns of paths.
//!
//! Owns: what a pattern matches, and which directories need not be looked into for it.
//! Must not know: how files are found.
//! Invariant: patterns are matched against whole paths from the root of the dataset. `*` and `?` stay within a name,
//! `**` goes over any number of directories, and a directory that matches stands for all that is in it.
//! Trust: patterns are the user's; paths are bytes of a publisher. Matching takes time linear in the path.
//! Threads: pure values.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns of one request at most.
const MAX_PATTERNS: usize = 256;

/// Why patterns are none.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GlobError {
    /// The user's mistake.
    #[error("`{pattern}` is not a pattern: {cause}")]
    Pattern { pattern: String, cause: String },
    /// The user's mistake.
    #[error(
        "{found} patterns are more than {MAX_PATTERNS}: use `*`, `**` or `{{a,b}}` to say the same in fewer"
    )]
    TooMany { found: usize },
}

/// Some patterns; none match everything.
#[derive(Debug, Clone)]
pub struct Globs {
    set: GlobSet,
    /// The directories that each pattern names before its first wildcard, or all of it, with a slash at the end of each.
    heads: Vec<Vec<u8>>,
}

impl Globs {
    /// Slashes at the beginning and end of a pattern mean nothing.
    pub fn new(patterns: &[String]) -> Result<Self, GlobError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(GlobError::TooMany { found: patterns.len() });
        }
        let mut set = GlobSetBuilder::new();
        let mut heads = Vec::new();
        for pattern in patterns {
            let bad = |cause: String| GlobError::Pattern { pattern: pattern.clone(), cause };
            let bare = pattern.trim_matches('/');
            if bare.is_empty() || bare.split('/').any(|name| matches!(name, "" | "." | "..")) {
                return Err(bad("it names no path below the root of the dataset".into()));
            }
            let glob = GlobBuilder::new(bare).literal_separator(true).build();
            set.add(glob.map_err(|error| bad(error.kind().to_string()))?);
            let plain = bare.find(['*', '?', '[', '{', '\\']).unwrap_or(bare.len());
            // One without wildcards is the path itself.
            let whole = format!("{bare}/");
            let head = match plain == bare.len() {
                true => whole.len(),
                false => bare[..plain].rfind('/').map_or(0, |slash| slash + 1),
            };
            heads.push(whole.as_bytes()[..head].to_vec());
        }
        let failed = |error: globset::Error| GlobError::Pattern {
            pattern: patterns.join(" "),
            cause: error.kind().to_string(),
        };
        Ok(Self { set: set.build().map_err(failed)?, heads })
    }

    /// Whether everything is meant.
    pub fn is_all(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether the path itself is meant; then so is all below it.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.is_all() || self.set.is_match(Path::new(OsStr::from_bytes(path)))
    }

    /// Whether something below the directory `path` may be meant.
    pub(super) fn may_match_below(&self, path: &[u8]) -> bool {
        let on_the_way = |head: &Vec<u8>| {
            let common = head.len().min(path.len() + 1);
            let dir = path.iter().copied().chain([b'/']);
            dir.take(common).eq(head[..common].iter().copied())
        };
        self.is_all() || self.heads.iter().any(on_the_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Result<Globs, GlobError> {
        Globs::new(&patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn patterns_are_of_whole_paths() {
        let cases = [
            ("*.jpg", "a.jpg", true),
            ("*.jpg", "train/a.jpg", false),
            ("**/*.jpg", "train/x/a.jpg", true),
            ("**/*.jpg", "a.jpg", true),
            ("train/**", "train/x/a.jpg", true),
            ("train/**", "test/a.jpg", false),
            ("train", "train", true),
            ("/train/", "train", true),
            ("train/{a,b}?.png", "train/b7.png", true),
            ("train/[0-4]*", "train/5x", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(globs(&[pattern]).unwrap().matches(path.as_bytes()), expected, "{pattern} {path}");
        }
        assert!(globs(&[]).unwrap().matches(b"anything") && globs(&[]).unwrap().is_all());
        assert!(globs(&["*"]).unwrap().matches(b"\xff"), "names need not be UTF-8");
    }

    #[test]
    fn directories_that_cannot_match_are_told() {
        let some = globs(&["train/cats/*.jpg", "val/**", "labels", "extra/v1"]).unwrap();
        for (dir, expected) in [
            ("train", true),
            ("train/cats", true),
            ("train/cats/deep", true),
            ("train/dogs", false),
            ("trains", false),
            ("val/x/y", true),
            ("test", false),
            ("labels", true),
            ("label", false),
            ("extra", true),
            ("extra/v1", true),
            ("extra/v2", false),
        ] {
            assert_eq!(some.may_match_below(dir.as_bytes()), expected, "{dir}");
        }
        assert!(globs(&["**/x"]).unwrap().may_match_below(b"any/thing"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "/", "a/../b", "./a", "a//b", "a[", "{a"] {
            let error = globs(&[bad]).unwrap_err();
            assert!(matches!(&error, GlobError::Pattern { pattern, .. } if pattern == bad), "{error}");
        }
        let many = vec!["a".to_owned(); MAX_PATTERNS + 1];
        assert!(matches!(Globs::new(&many), Err(GlobError::TooMany { found: 257 })));
    }
}
