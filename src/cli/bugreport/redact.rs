//! Taking names out of a report that strangers will read.
//!
//! Owns: what is taken out, and what stands in its place.
//! Must not know: what a report consists of.
//! Invariant: the same name gets the same mark everywhere, and a mark says of what kind the name was. A name is found only as a whole
//! word, so that what is about it stays readable.
//! Trust: names may be anything. Threads: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Names, and what stands in their place.
#[derive(Debug, Default)]
pub struct Redactor {
    /// By the name.
    marks: BTreeMap<String, String>,
    /// How many of each kind there are.
    counts: BTreeMap<&'static str, usize>,
}

impl Redactor {
    /// From now on `name` is taken out; `kind` says what it was, such as `dataset`.
    pub fn hide(&mut self, kind: &'static str, name: &str) {
        // Shorter ones are found everywhere, and say nothing.
        if name.len() >= 2 && !self.marks.contains_key(name) {
            let count = self.counts.entry(kind).or_default();
            *count += 1;
            self.marks.insert(name.to_owned(), format!("<{kind}-{count}>"));
        }
    }

    /// The text without the names, and without paths and addresses and names of machines, which are known by their form.
    pub fn clean(&mut self, text: &str) -> String {
        paths(text).for_each(|path| self.hide("path", path));
        addresses(text).iter().for_each(|address| self.hide("address", address));
        machines(text).for_each(|name| self.hide("machine", name));
        // Longer ones first: a name may be a part of another.
        let mut marks: Vec<(&String, &String)> = self.marks.iter().collect();
        marks.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        marks.into_iter().fold(text.to_owned(), |text, (name, mark)| replace_words(&text, name, mark))
    }

    /// How many names of each kind were taken out.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.counts.iter().map(|(kind, count)| (*kind, *count))
    }
}

fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `text` with `mark` for `name`, wherever that is not a part of a longer word.
fn replace_words(text: &str, name: &str, mark: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let glued = |outside: Option<char>, inside: Option<char>| {
            outside.is_some_and(is_part_of_word) && inside.is_some_and(is_part_of_word)
        };
        let last = before.chars().next_back().or_else(|| clean.chars().next_back());
        let is_word =
            !glued(last, name.chars().next()) && !glued(after.chars().next(), name.chars().next_back());
        clean.push_str(before);
        clean.push_str(if is_word { mark } else { name });
        rest = after;
    }
    clean.push_str(rest);
    clean
}

/// Where what is the same on every machine is.
const EVERYWHERE: [&str; 12] = [
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/metrics",
    "/proc",
    "/run/bcai",
    "/sbin",
    "/sys",
    "/usr",
    "/v1",
    "/var/lib/bcai",
];
/// How addresses of nodes begin.
const MULTIADDRESSES: [&str; 10] =
    ["/dns", "/dns4", "/dns6", "/dnsaddr", "/ip4", "/ip6", "/memory", "/p2p", "/tcp", "/udp"];

/// The absolute paths in a text, but for those that are the same everywhere. One with blanks ends at the first.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| c.is_whitespace() || "\"'`(),;=<>|".contains(c);
    let words = text.split(ends).map(|word| word.trim_end_matches([':', '.']));
    let is_known = |word: &str| {
        let mut known = EVERYWHERE.iter().chain(&MULTIADDRESSES);
        known.any(|top| word.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    words.filter(move |word| {
        word.len() > 1 && word.starts_with('/') && !word.starts_with("//") && !is_known(word)
    })
}

/// The names of machines in addresses of nodes.
fn machines(text: &str) -> impl Iterator<Item = &str> {
    ["/dns/", "/dns4/", "/dns6/", "/dnsaddr/"].into_iter().flat_map(|kind| {
        let found = text.match_indices(kind);
        found.filter_map(|(at, _)| text[at + kind.len()..].split(['/', ' ', ',', '"', '\n']).next())
    })
}

/// The addresses of machines in a text, but for those that mean this machine or any.
fn addresses(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_hexdigit() || c == '.' || c == ':';
    let words = text.split(|c| !is_part(c)).map(|word| word.trim_end_matches(['.', ':']));
    let hosts = words.map(|word| match word.rsplit_once(':') {
        // With a port.
        Some((host, _)) if host.parse::<std::net::Ipv4Addr>().is_ok() => host,
        _ => word,
    });
    // `a::b` is a path in a program, and an address all the same: those of machines have digits.
    let is_machine = |host: &&str| {
        host.contains(|c: char| c.is_ascii_digit())
            && host.parse().is_ok_and(|ip: IpAddr| !ip.is_loopback() && !ip.is_unspecified())
    };
    hosts.filter(is_machine).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_by_the_same_mark_wherever_they_are_whole_words() {
        let mut redactor = Redactor::default();
        redactor.hide("dataset", "data");
        redactor.hide("dataset", "data-2");
        redactor.hide("directory", "/mnt/data");
        redactor.hide("dataset", "data");
        redactor.hide("user", "a");
        let text = "data@v1 on /mnt/data: metadata of data-2, database_data, data";
        let clean = "<dataset-1>@v1 on <directory-1>: metadata of <dataset-2>, database_data, <dataset-1>";
        assert_eq!(redactor.clean(text), clean);
        assert_eq!(redactor.counts().collect::<Vec<_>>(), [("dataset", 2), ("directory", 1)]);
    }

    #[test]
    fn addresses_of_machines_go_and_what_only_looks_like_one_stays() {
        let mut redactor = Redactor::default();
        let text = "/ip4/192.0.2.7/tcp/4001 192.0.2.7:80. fe80::1, [2001:db8::5]:9 node::dead::x 127.0.0.1 ::1 0.0.0.0 0.1.0 12:34:56";
        let clean = "/ip4/<address-1>/tcp/4001 <address-1>:80. <address-2>, [<address-3>]:9 node::dead::x 127.0.0.1 ::1 0.0.0.0 0.1.0 12:34:56";
        assert_eq!(redactor.clean(text), clean);
    }

    #[test]
    fn paths_and_names_of_machines_are_known_by_their_form() {
        let mut redactor = Redactor::default();
        let text = "in /srv/x.toml; dir=/mnt/a \"/mnt/a\" /usr/bin/bcai /dev/fuse /ip4/127.0.0.1/tcp/1 /v1/status a/b // /";
        let clean = "in <path-1>; dir=<path-2> \"<path-2>\" /usr/bin/bcai /dev/fuse /ip4/127.0.0.1/tcp/1 /v1/status a/b // /";
        assert_eq!(redactor.clean(text), clean);
        let text = "/dns4/relay.acme.com/tcp/1/p2p/x,/dnsaddr/acme.com and relay.acme.com";
        let clean = "/dns4/<machine-1>/tcp/1/p2p/x,/dnsaddr/<machine-2> and <machine-1>";
        assert_eq!(redactor.clean(text), clean);
    }

    #[test]
    fn names_beyond_ascii_are_words_too() {
        let mut redactor = Redactor::default();
        redactor.hide("user", "jürg");
        assert_eq!(redactor.clean("jürg jürgen ajürg é jürg"), "<user-1> jürgen ajürg é <user-1>");
    }
}
