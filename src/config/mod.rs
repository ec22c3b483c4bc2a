//! Settings: every key, its default, and where its effective value came from.
//!
//! Owns: the table of keys, the order of precedence (flag, environment, user file, system file, default)
//! and the folders a node lives in (`paths`).
//! Must not know: what any setting does.
//! Invariant: a `Config` that exists is valid; every value remembers its origin, so that `bcai doctor` can
//! answer "why is it so?".
//! Trust: files and environment are the user's; each mistake is answered with the key, the place and the remedy.
//! Threads: built once at start, then shared read-only.

mod keeping;
mod limit;
mod mounting;
mod paths;
mod replicas;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bytesize::ByteSize;

use crate::chunking::Chunking;
use crate::net::Mode;
use crate::origin::{OriginUrl, UrlError};
use crate::pack::Compression;

pub use keeping::Keeping;
use limit::LIMIT;
pub use limit::Limit;
use mounting::READAHEAD;
pub use mounting::{Fetch, Io, Readahead};
pub use paths::{Paths, PathsError};
pub use replicas::Replicas;

/// A setting that cannot be used: always the user's mistake, never worth a retry.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is not valid TOML: {cause}", path.display())]
    Syntax { path: PathBuf, cause: String },
    #[error("unknown configuration key `{key}` in {origin}{}", suggestion(key))]
    UnknownKey { key: String, origin: Origin },
    #[error("`{value}` is not a value for `{key}` (from {origin}): expected {expected}")]
    BadValue { key: &'static str, value: String, origin: Origin, expected: String },
    #[error("`net.origins` (from {origin}) cannot be used: {cause}")]
    BadOrigin { origin: Origin, cause: String },
    #[error("the value of {origin} is not UTF-8 text")]
    NotText { origin: Origin },
    #[error("`-c {0}` is not of the form KEY=VALUE")]
    BadFlag(String),
}

/// Where an effective value came from, in rising order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// One key: its name in files, its default as a user would write it, and what it means.
pub struct Key {
    pub name: &'static str,
    pub default: &'static str,
    pub help: &'static str,
}

/// Every key there is. `docs/OPERATIONS.md` and `bcai(1)` print this table.
pub const KEYS: &[Key] = &[
    Key {
        name: "cache.max_bytes",
        default: "auto",
        help: "disk given to chunks fetched from peers; auto: a tenth of the disk, at most half of what is free at the first start",
    },
    Key {
        name: "gc.keep_withdrawn",
        default: "30",
        help: "days that `bcai gc` leaves what was published here after every version of it was withdrawn",
    },
    Key {
        name: "gc.keep_unpublished",
        default: "30",
        help: "days that `bcai gc` leaves a snapshot that is in no version, from when it was built",
    },
    Key {
        name: "log.level",
        default: "info",
        help: "what the daemon logs: error, warn, info, debug or trace, also per module (info,bcai::net=debug)",
    },
    Key { name: "log.format", default: "human", help: "human or json" },
    Key {
        name: "manifests.max_age",
        default: "7",
        help: "days that the newest block of a network's manifest log may be old before NAME or a tag of it is no longer believed to mean the newest version; 0: for ever",
    },
    Key {
        name: "mount.fetch",
        default: "spread",
        help: "where the contents of a mount that does not say `-o fetch=` come from: spread (all peers), best (one peer, others when it fails), local (nobody) or quorum (as spread, of a version that several peers were asked about)",
    },
    Key {
        name: "mount.io",
        default: "auto",
        help: "how contents reach the readers of a mount that does not say `-o io=`: auto, passthrough, zero-open or cached",
    },
    Key {
        name: "mount.readahead",
        default: "auto",
        help: "how far ahead of each reader a mount fetches that does not say `-o readahead=`: auto (what is measured decides), a size such as 8MiB, or 0 (nothing before it is read)",
    },
    Key {
        name: "net.download_limit",
        default: "unlimited",
        help: "bytes of objects received in a second, from all peers together, such as 10MiB; a setting wins over `bcai peers limit` at the start",
    },
    Key {
        name: "net.listen",
        default: "/ip4/0.0.0.0/tcp/0,/ip4/0.0.0.0/udp/0/quic-v1",
        help: "addresses to listen on, separated by commas; a port of 0 is chosen once and then kept",
    },
    Key {
        name: "net.origins",
        default: "",
        help: "object stores that are asked when no peer has something, separated by commas: file:///FOLDER, https://HOST/PREFIX, s3://BUCKET/PREFIX",
    },
    Key { name: "net.max_peers", default: "64", help: "most connections to other nodes" },
    Key { name: "net.mdns", default: "true", help: "find nodes on the local network" },
    Key {
        name: "net.upload_limit",
        default: "unlimited",
        help: "bytes of objects sent in a second, to all peers together, such as 10MiB; a setting wins over `bcai peers limit` at the start",
    },
    Key {
        name: "net.mode",
        default: "hybrid",
        help: "hybrid; direct: no relays; mesh: only the local network; anonymous: only through net.relays, under another peer id in each run",
    },
    Key {
        name: "net.relays",
        default: "",
        help: "addresses of relays, each with /p2p/ and its peer id, separated by commas: others can reach this node through them",
    },
    Key { name: "net.relay", default: "false", help: "be a relay for others" },
    Key {
        name: "net.allow",
        default: "",
        help: "peer ids, separated by commas: connect with these nodes (and relays) only; everybody if empty",
    },
    Key {
        name: "net.block",
        default: "",
        help: "peer ids, separated by commas: never connect with these nodes",
    },
    Key {
        name: "publish.chunking",
        default: "auto",
        help: "auto (cdc:64K that knows tar, zip, safetensors and Parquet), cdc:64K, cdc:256K, cdc:1M, fixed:1M, fixed:2M or fixed:4M",
    },
    Key { name: "publish.compress", default: "lz4", help: "none, lz4 or zstd:LEVEL" },
    Key {
        name: "replicas.zone",
        default: "",
        help: "where this storage node is, such as a rack or a building: copies go to different zones first",
    },
    Key {
        name: "replicas.lost_after",
        default: "600",
        help: "seconds without an answer after which a storage node counts as lost, and others take over what it held",
    },
    Key {
        name: "replicas.keep_withdrawn",
        default: "7",
        help: "days that a storage node goes on holding a version after it was withdrawn",
    },
    Key {
        name: "scrub.days",
        default: "30",
        help: "days in which everything in the store is hashed again in the background, and damage repaired from peers; 0: never",
    },
    Key {
        name: "web.listen",
        default: "",
        help: "where the node shows itself on a web page, to everybody who can connect there, such as 127.0.0.1:7117; nowhere if empty",
    },
];

/// One effective setting, as text.
#[derive(Debug, Clone)]
pub struct Setting {
    pub value: String,
    pub origin: Origin,
}

/// The effective settings of this process.
#[derive(Debug, Clone)]
pub struct Config {
    settings: BTreeMap<&'static str, Setting>,
    /// Bytes of cache; `None` means: work it out from the disk.
    pub cache_max_bytes: Option<u64>,
    pub log_level: String,
    /// Days; 0 for no limit.
    pub max_log_age: u64,
    pub log_format: LogFormat,
    /// For mounts that do not say.
    pub io: Io,
    pub fetch: Fetch,
    pub readahead: Readahead,
    pub listen: Vec<String>,
    pub origins: Vec<OriginUrl>,
    pub max_peers: u32,
    pub mdns: bool,
    /// `None` when nothing sets them.
    pub upload_limit: Option<Limit>,
    pub download_limit: Option<Limit>,
    pub mode: Mode,
    pub relays: Vec<String>,
    pub relay: bool,
    pub allow: Vec<String>,
    pub block: Vec<String>,
    pub chunking: Chunking,
    pub compression: Compression,
    pub replicas: Replicas,
    pub keeping: Keeping,
    /// Where the web page is to be had.
    pub web: Option<SocketAddr>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("human or json".into()),
        }
    }
}

impl Config {
    /// Settles every key from the files of `paths`, the environment and `-c KEY=VALUE` flags.
    pub fn load(
        paths: &Paths,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[String],
    ) -> Result<Self, ConfigError> {
        let mut settings: BTreeMap<&'static str, Setting> = KEYS
            .iter()
            .map(|key| (key.name, Setting { value: key.default.into(), origin: Origin::Default }))
            .collect();
        let mut set = |name: &str, value: String, origin: Origin| {
            let key = KEYS.iter().find(|key| key.name == name);
            let key =
                key.ok_or_else(|| ConfigError::UnknownKey { key: name.into(), origin: origin.clone() })?;
            settings.insert(key.name, Setting { value, origin });
            Ok::<(), ConfigError>(())
        };
        for file in paths.config_files() {
            for (name, value) in read_file(&file)? {
                set(&name, value, Origin::File(file.clone()))?;
            }
        }
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| is_ours(name)) else { continue };
            let origin = Origin::Environment(name.to_owned());
            let known = KEYS.iter().find(|key| variable(key.name) == name);
            let key = known.map_or_else(|| name.to_owned(), |key| key.name.to_owned());
            let value = value.into_string().map_err(|_| ConfigError::NotText { origin: origin.clone() })?;
            set(&key, value, origin)?;
        }
        for flag in flags {
            let (name, value) = flag.split_once('=').ok_or_else(|| ConfigError::BadFlag(flag.clone()))?;
            set(name.trim(), value.trim().to_owned(), Origin::Flag)?;
        }
        Self::from_settings(settings)
    }

    fn from_settings(settings: BTreeMap<&'static str, Setting>) -> Result<Self, ConfigError> {
        let get = |key: &'static str| &settings[key];
        let cache = get("cache.max_bytes");
        let cache_max_bytes = match cache.value.as_str() {
            "auto" => None,
            _ => Some(parse::<ByteSize>("cache.max_bytes", cache, "a size such as 50GiB, or auto")?.as_u64()),
        };
        let list = |key: &'static str| {
            let items = get(key).value.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(str::to_owned).collect()
        };
        let limit = |key| match get(key) {
            Setting { origin: Origin::Default, .. } => Ok(None),
            setting => parse::<Limit>(key, setting, LIMIT).map(Some),
        };
        let origins = get("net.origins");
        let urls = origins.value.split(',').map(str::trim).filter(|url| !url.is_empty());
        Ok(Self {
            origins: urls.map(|url| origin(url, &origins.origin)).collect::<Result<_, _>>()?,
            cache_max_bytes,
            log_level: get("log.level").value.clone(),
            max_log_age: parse("manifests.max_age", get("manifests.max_age"), "a number of days")?,
            log_format: parse("log.format", get("log.format"), "human or json")?,
            io: parse("mount.io", get("mount.io"), "auto, passthrough, zero-open or cached")?,
            fetch: parse("mount.fetch", get("mount.fetch"), "local, best, spread or quorum")?,
            readahead: parse("mount.readahead", get("mount.readahead"), READAHEAD)?,
            listen: list("net.listen"),
            max_peers: parse("net.max_peers", get("net.max_peers"), "a number")?,
            mdns: parse("net.mdns", get("net.mdns"), "true or false")?,
            upload_limit: limit("net.upload_limit")?,
            download_limit: limit("net.download_limit")?,
            mode: parse("net.mode", get("net.mode"), "hybrid, direct, mesh or anonymous")?,
            relays: list("net.relays"),
            relay: parse("net.relay", get("net.relay"), "true or false")?,
            allow: list("net.allow"),
            block: list("net.block"),
            chunking: parse(
                "publish.chunking",
                get("publish.chunking"),
                "such as auto, cdc:64K or fixed:1M",
            )?,
            compression: parse("publish.compress", get("publish.compress"), "none, lz4 or zstd:LEVEL")?,
            replicas: Replicas::from_settings(&settings)?,
            keeping: Keeping::from_settings(&settings)?,
            web: match get("web.listen") {
                nowhere if nowhere.value.is_empty() => None,
                at => Some(parse("web.listen", at, "an IP address and a port, such as 127.0.0.1:7117")?),
            },
            settings,
        })
    }

    /// Every key with its effective value and origin, sorted by key.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        self.settings.iter().map(|(name, setting)| (*name, setting))
    }
}

/// A mistake is not repeated: what somebody took for an origin may hold a password.
fn origin(url: &str, from: &Origin) -> Result<OriginUrl, ConfigError> {
    url.parse()
        .map_err(|error: UrlError| ConfigError::BadOrigin { origin: from.clone(), cause: error.to_string() })
}

/// The environment variable of a key: `cache.max_bytes` is `BCAI_CACHE_MAX_BYTES`.
pub fn variable(key: &str) -> String {
    format!("BCAI_{}", key.replace('.', "_").to_uppercase())
}

/// `BCAI_HOME` is not a setting: it says where the settings are. Nor is the passphrase of the keys, which is shown nowhere.
fn is_ours(variable: &str) -> bool {
    variable.starts_with("BCAI_")
        && !["BCAI_HOME", "BCAI_PASSPHRASE", "BCAI_PASSPHRASE_FILE"].contains(&variable)
}

fn parse<T: FromStr>(key: &'static str, setting: &Setting, expected: &str) -> Result<T, ConfigError> {
    setting.value.parse().map_err(|_| ConfigError::BadValue {
        key,
        value: setting.value.clone(),
        origin: setting.origin.clone(),
        expected: expected.into(),
    })
}

/// Reads one TOML file into dotted keys. A file that does not exist sets nothing.
fn read_file(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ConfigError::Unreadable { path: path.into(), source }),
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.into(),
        cause: error.to_string().trim_end().to_owned(),
    })?;
    let mut keys = Vec::new();
    flatten("", &table, &mut keys);
    Ok(keys)
}

fn flatten(prefix: &str, table: &toml::Table, keys: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&name, inner, keys),
            toml::Value::Array(items) => {
                keys.push((name, items.iter().map(plain).collect::<Vec<_>>().join(",")));
            }
            other => keys.push((name, plain(other))),
        }
    }
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// "; did you mean …?" when a known key shares most of its letters with `key`.
fn suggestion(key: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let close = KEYS.iter().find(|known| {
        let known_last = known.name.rsplit('.').next().unwrap_or(known.name);
        known_last.starts_with(last) || last.starts_with(known_last) || known.name.replace('.', "_") == key
    });
    match close {
        Some(known) => format!("; did you mean `{}`?", known.name),
        None => "; `man bcai` lists the keys".into(),
    }
}

#[cfg(test)]
mod tests;
