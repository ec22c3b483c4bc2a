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

    /// The text without the names, and without addresses of machines.
    pub fn clean(&mut self, text: &str) -> String {
        for address in addresses(text) {
            self.hide("address", &address);
        }
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
    fn names_beyond_ascii_are_words_too() {
        let mut redactor = Redactor::default();
        redactor.hide("user", "jürg");
        assert_eq!(redactor.clean("jürg jürgen ajürg é jürg"), "<user-1> jürgen ajürg é <user-1>");
    }
}
