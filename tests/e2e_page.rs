//! The web page: what a browser makes of it, and what its port lets others do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod browser;
mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use browser::Browser;
use common::{Site, wait_until};
use serde_json::Value;

/// What a publisher may write, and a page must not read as markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";

fn shown() -> Site {
    let mut site = Site::new();
    site.settings.push(("BCAI_WEB_LISTEN".into(), "127.0.0.1:0".into()));
    site.ok(["init"]);
    site
}

/// Where the page is.
fn address(site: &Site) -> String {
    site.status()["web"]["address"].as_str().unwrap().to_owned()
}

/// A whole answer to a request as it stands.
fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: &str, path: &str, host: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

#[test]
#[cfg_attr(not(all(chromium, fuse_available)), ignore = "no chromium, or no /dev/fuse here")]
fn a_browser_shows_the_node_and_reads_no_name_as_markup() {
    let site = shown();
    let source = site.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    site.publish(&source, "data@v1");
    fs::write(source.join("file"), "more").unwrap();
    site.publish(&source, "data@v2");
    site.ok(["yank", "data@v1", "--reason", HOSTILE]);
    let mounted = site.mount("data@v2", &format!("mnt {}", HOSTILE.replace('/', ":")));
    let url = format!("http://{}/", address(&site));
    let voter = site.json(["validator"])["validators"][0]["voter"].as_str().unwrap().to_owned();
    let mut browser = Browser::start(400);
    browser.go(&url);
    browser.wait("document.querySelector('#live')?.className === 'good'");
    browser.wait("document.querySelectorAll('#mounts tbody tr').length === 1");
    let directory = browser.eval("document.querySelector('#mounts code').textContent");
    assert_eq!(directory.as_str(), mounted.to_str());

    // Opened by the keyboard alone, as everything can be.
    browser.eval("document.querySelector('#datasets summary').focus()");
    browser.press("Enter", '\r');
    browser.wait("document.querySelectorAll('#datasets button[data-action=certificate]').length === 2");
    browser.eval("document.querySelector('#datasets button[data-action=certificate]').focus()");
    browser.press(" ", ' ');
    browser.wait("document.querySelector('#datasets .seats') !== null");
    let text = browser.eval("document.querySelector('#datasets').innerText");
    let text = text.as_str().unwrap();
    assert!(text.contains("1 of 1, 100") && text.contains(&voter), "{text}");
    assert!(text.contains(&format!("withdrawn: {HOSTILE}")), "{text}");
    let heights = browser.eval("document.querySelectorAll('#validators .heights rect').length");
    assert_eq!(heights, site.status()["networks"][0]["height"]);

    // What was opened stays so when the page is brought up to date.
    site.ok(["tag", "data", "stable", "v2"]);
    browser.wait("document.querySelector('#datasets').innerText.includes('stable')");
    assert_eq!(browser.eval("document.querySelector('#datasets .seats') !== null"), true);

    assert_eq!(browser.eval("document.title"), "bcai");
    assert_eq!(browser.eval("document.querySelectorAll('main img, main script').length"), 0);
    for width in [320, 400, 800, 1400] {
        browser.resize(width);
        let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        assert_eq!(browser.eval(fits), true, "{width} pixels are not enough");
    }
    let requests = browser.requests();
    assert!(requests.iter().any(|asked| asked.ends_with("/v1/jobs/events")), "{requests:?}");
    let foreign: Vec<_> = requests.iter().filter(|asked| !asked.starts_with(&url)).collect();
    assert!(foreign.iter().all(|asked| *asked == "about:blank"), "{foreign:?}");
    assert_eq!(browser.complaints(), Vec::<String>::new());

    site.ok(["stop"]);
    browser.wait("document.querySelector('#live').className === 'bad'");
    let said = browser.eval("document.querySelector('#live').textContent");
    assert!(said.as_str().unwrap().contains("no answer"), "{said}");
    // It went on saying that nothing was wrong.
    let said = browser.eval("document.querySelector('#alerts').innerText");
    assert!(said.as_str().unwrap().contains("does not answer"), "{said}");
}

#[test]
fn the_page_can_be_looked_at_and_changes_nothing() {
    let site = shown();
    let at = address(&site);
    assert!(site.ok(["status"]).contains(&format!("http://{at}/")));
    let page = get(&at, "/", &at);
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("text/html"), "{page}");
    let policy = page.lines().find(|line| line.starts_with("content-security-policy:")).unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let status = get(&at, "/v1/status", &at);
    let body = status.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["pid"], site.status()["pid"]);

    let metrics = get(&at, "/metrics", &at);
    assert!(metrics.contains("openmetrics-text") && metrics.contains("bcai_uptime_seconds"), "{metrics}");

    for route in ["/v1/stop", "/v1/publish", "/v1/unmount", "/v1/keys/rotate", "/v1/read", "/v1/log"] {
        let request = format!(
            "POST {route} HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        );
        let answer = exchange(&at, &request);
        assert!(answer.starts_with("HTTP/1.1 404"), "{route}: {answer}");
    }
    let posted =
        format!("POST /v1/status HTTP/1.1\r\nHost: {at}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(exchange(&at, &posted).starts_with("HTTP/1.1 405"));
    for asked in ["/v1/certificates?network=x", "/v1/validators?network=x", "/v1/certificates"] {
        assert!(get(&at, asked, &at).starts_with("HTTP/1.1 400"), "{asked}");
    }
    assert!(get(&at, "/../../etc/passwd", &at).starts_with("HTTP/1.1 404"));
}

/// A page of somebody else's can give its own name the address of this machine, and then read what is answered there.
#[test]
fn another_name_for_this_machine_is_refused() {
    let site = shown();
    let at = address(&site);
    let port = at.rsplit_once(':').unwrap().1;
    for host in ["rebound.example", &format!("rebound.example:{port}"), "127.0.0.1.rebound.example"] {
        for path in ["/", "/v1/status", "/v1/jobs/events"] {
            let answer = get(&at, path, host);
            assert!(answer.starts_with("HTTP/1.1 421") && !answer.contains("pid"), "{host}{path}: {answer}");
        }
    }
    assert!(exchange(&at, "GET /v1/status HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 421"));
    assert!(get(&at, "/v1/status", &format!("localhost:{port}")).starts_with("HTTP/1.1 200"));
}

#[test]
fn the_page_is_off_unless_it_is_asked_for() {
    let site = Site::initialised();
    assert!(site.status()["web"].is_null());
}

/// The node matters more than its page: mounts are not given up for a port.
#[test]
fn a_port_that_is_taken_is_named_and_the_node_goes_on() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    let mut site = Site::new();
    site.settings.push(("BCAI_WEB_LISTEN".into(), taken.clone()));
    site.ok(["init"]);
    // Among others: the disk of a test may be nearly full.
    let active = |alerts: &Value| {
        let mut alerts = alerts.as_array().unwrap().iter();
        alerts.find(|alert| alert["id"] == "no-web-page" && alert["state"] == "active").cloned()
    };
    let alert = active(&site.json(["alerts"])).expect("an alert about the page");
    assert!(alert["text"].as_str().unwrap().contains(&taken), "{alert}");
    assert!(alert["remedy"].as_str().unwrap().contains("web.listen"), "{alert}");
    assert!(site.ok(["doctor"]).contains(&taken));
    // The remedy works without a restart when it is the other program that gives way.
    drop(other);
    wait_until("the page is open", || site.status()["web"]["error"].is_null());
    assert!(get(&taken, "/", &taken).starts_with("HTTP/1.1 200"));
    assert_eq!(active(&site.json(["alerts"])), None);
}

/// A job that one terminal began is seen by whoever watches, on the socket as on the page, from its beginning to its end.
#[test]
fn jobs_are_told_as_events() {
    let site = shown();
    let source = site.dir("source");
    fs::write(source.join("file"), "content").unwrap();
    let mut stream = UnixStream::connect(site.home.join("run/api.sock")).unwrap();
    stream.set_read_timeout(Some(common::DEADLINE)).unwrap();
    stream.write_all(b"GET /v1/jobs/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = || loop {
        let line = lines.next().expect("an event").unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).unwrap();
        }
    };
    assert_eq!(next(), serde_json::json!({ "running": [], "ended": [] }));
    site.publish(&source, "data@v1");
    site.fails(10, [OsStr::new("export"), OsStr::new("data@v9"), site.dir("copy").as_os_str()]);
    let ended = loop {
        let ended = next()["ended"].clone();
        if ended.as_array().unwrap().len() == 2 {
            break ended;
        }
    };
    assert_eq!((&ended[1]["kind"], &ended[1]["outcome"]), (&"publish".into(), &"done".into()), "{ended}");
    assert_eq!((&ended[0]["kind"], &ended[0]["outcome"]), (&"export".into(), &"failed".into()), "{ended}");
    assert!(ended[0]["error"]["message"].as_str().unwrap().contains("v9"), "{ended}");

    // One that is given up: its terminal goes away.
    fs::write(source.join("file"), common::noise(1, 64 << 20)).unwrap();
    let given_up = common::Running(
        site.command([OsStr::new("publish"), source.as_os_str(), OsStr::new("data@v2")]).spawn().unwrap(),
    );
    let is_over = |told: &Value| told["ended"].as_array().unwrap().len() == 3;
    let mut told = next();
    while told["running"].as_array().unwrap().is_empty() && !is_over(&told) {
        told = next();
    }
    drop(given_up);
    while !is_over(&told) {
        told = next();
    }
    assert!(told["running"].as_array().unwrap().is_empty(), "{told}");
    let last = &told["ended"][0];
    // It may have been done when it was given up.
    assert!(last["kind"] == "publish" && last["outcome"] != "failed", "{last}");
}

/// Connections that say nothing must not keep the page from others for good.
#[test]
fn silent_connections_are_closed() {
    let site = shown();
    let at = address(&site);
    let silent: Vec<_> = (0..70).map(|_| TcpStream::connect(&at).unwrap()).collect();
    assert!(get(&at, "/", &at).starts_with("HTTP/1.1 200"));
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut rest = Vec::new();
        // Closed, with or without a word about the time; not given up by us.
        let closed = stream.read_to_end(&mut rest);
        let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(closed.as_ref().map_or_else(reset, |_| true), "{closed:?}");
    }
}

/// A prefetch of hours that a reboot had cut off was missed by nobody until somebody waited for the data.
#[test]
fn what_the_end_of_the_node_has_cut_off_is_named_by_the_next_one() {
    let (publisher, mut reader) = (Site::initialised(), Site::new());
    let source = publisher.dir("source");
    fs::write(source.join("file"), common::noise(1, 8 << 20)).unwrap();
    let uri = publisher.publish(&source, "data@v1");
    // So that it takes two minutes.
    reader.settings.push(("BCAI_NET_DOWNLOAD_LIMIT".into(), "64KiB".into()));
    let prefetching = common::Running(reader.command(["prefetch", &uri]).spawn().unwrap());
    let noted =
        || fs::read_to_string(reader.home.join("state.json")).is_ok_and(|text| text.contains("\"prefetch\""));
    wait_until("the job is written down", noted);
    reader.kill();
    drop(prefetching);
    reader.ok(["daemon"]);
    let status = reader.status();
    let cut_off = &status["interrupted"][0];
    assert_eq!(
        (&cut_off["kind"], &cut_off["outcome"]),
        (&"prefetch".into(), &"interrupted".into()),
        "{status}"
    );
    assert!(reader.ok(["status"]).contains("cut off   prefetch bcai://"), "{status}");
    wait_until("it is written down no more", || !noted());
}
