//! Which setting wins, and what is said of mistakes.

use super::*;

fn load(file: &str, env: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("config.toml"), file).unwrap();
    let paths = Paths::under(home.path()).unwrap();
    let env = env.iter().map(|(k, v)| (k.into(), v.into()));
    let flags: Vec<String> = flags.iter().map(|f| f.to_string()).collect();
    Config::load(&paths, env, &flags)
}

#[test]
fn defaults_are_valid_and_say_so() {
    let config = load("", &[], &[]).unwrap();
    assert_eq!(config.cache_max_bytes, None);
    assert!(config.settings().all(|(_, setting)| setting.origin == Origin::Default));
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file =
        "[net]\nmax_peers = 1\nmdns = false\nlisten = [\"/ip4/127.0.0.1/tcp/1\", \"/ip6/::1/tcp/1\"]\n";
    let config = load(file, &[("BCAI_NET_MAX_PEERS", "2")], &[]).unwrap();
    assert_eq!((config.max_peers, config.mdns, config.listen.len()), (2, false, 2));
    let config = load(file, &[("BCAI_NET_MAX_PEERS", "2")], &["net.max_peers=3"]).unwrap();
    assert_eq!(config.max_peers, 3);
}

#[test]
fn a_mount_fetches_from_all_peers_unless_it_is_told_otherwise() {
    assert_eq!(load("", &[], &[]).unwrap().fetch, Fetch::Spread);
    for fetch in [Fetch::Local, Fetch::Best, Fetch::Spread, Fetch::Quorum] {
        let file = format!("[mount]\nfetch = \"{}\"\n", fetch.name());
        assert_eq!(load(&file, &[], &[]).unwrap().fetch, fetch);
    }
    let text = load("", &[], &["mount.fetch=all"]).unwrap_err().to_string();
    assert!(text.contains("mount.fetch") && text.contains("quorum"), "{text}");
}

#[test]
fn reading_ahead_follows_what_is_measured_unless_it_is_fixed() {
    assert_eq!(load("", &[], &[]).unwrap().readahead.fixed(), None);
    for (text, bytes) in [("8MiB", 8 << 20), ("0", 0), ("64KiB", 64 << 10), ("1GiB", 1 << 30)] {
        let config = load("", &[("BCAI_MOUNT_READAHEAD", text)], &[]).unwrap();
        assert_eq!(config.readahead, Readahead::Fixed(bytes));
    }
    for bad in ["much", "1", "2GiB", "-1", ""] {
        let text = load("", &[], &[&format!("mount.readahead={bad}")]).unwrap_err().to_string();
        assert!(text.contains("mount.readahead") && text.contains("auto"), "{text}");
    }
}

#[test]
fn a_limit_is_a_rate_or_none_and_knows_whether_it_was_set() {
    let config = load("[net]\nupload_limit = \"2MiB\"\n", &[], &[]).unwrap();
    assert_eq!((config.upload_limit, config.download_limit), (Some(Limit(Some(2 << 20))), None));
    let config = load("", &[("BCAI_NET_UPLOAD_LIMIT", "unlimited")], &[]).unwrap();
    assert_eq!(config.upload_limit, Some(Limit(None)));
    for bad in ["fast", "0", "1KiB", "-1", ""] {
        let text = load("", &[], &[&format!("net.download_limit={bad}")]).unwrap_err().to_string();
        assert!(text.contains("net.download_limit") && text.contains("10MiB"), "{text}");
    }
}

#[test]
fn the_web_page_is_off_and_is_put_at_an_address() {
    assert_eq!(load("", &[], &[]).unwrap().web, None);
    let config = load("[web]\nlisten = \"[::1]:7117\"\n", &[], &[]).unwrap();
    assert_eq!(config.web, Some("[::1]:7117".parse().unwrap()));
    for bad in ["localhost:7117", "7117", "127.0.0.1", "http://127.0.0.1:7117"] {
        let text = load("", &[], &[&format!("web.listen={bad}")]).unwrap_err().to_string();
        assert!(text.contains("web.listen") && text.contains("127.0.0.1:7117"), "{text}");
    }
}

#[test]
fn mistakes_name_the_key_the_place_and_the_remedy() {
    let unknown = load("[cache]\nmax_byte = 3\n", &[], &[]).unwrap_err().to_string();
    assert!(unknown.contains("`cache.max_byte`") && unknown.contains("config.toml"), "{unknown}");
    assert!(unknown.contains("did you mean `cache.max_bytes`"), "{unknown}");
    let bad = load("", &[("BCAI_CACHE_MAX_BYTES", "lots")], &[]).unwrap_err().to_string();
    assert!(bad.contains("$BCAI_CACHE_MAX_BYTES") && bad.contains("50GiB"), "{bad}");
    assert!(load("not toml", &[], &[]).unwrap_err().to_string().contains("not valid TOML"));
    let typo = load("", &[("BCAI_NET_MDSN", "false")], &[]).unwrap_err().to_string();
    assert!(typo.contains("BCAI_NET_MDSN"), "{typo}");
    assert!(load("", &[], &["net.mdns"]).unwrap_err().to_string().contains("KEY=VALUE"));
}
