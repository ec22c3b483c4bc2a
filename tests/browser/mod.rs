//! A headless Chromium, driven through the pipe of its DevTools protocol.
//!
//! Owns: starting it, asking it, and what it has asked the network for. Must not know: the page.
//! The pipe is two descriptors, 3 and 4, with a zero byte after each message (chrome-devtools-protocol,
//! `--remote-debugging-pipe`), so nothing but JSON is needed to speak it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long any answer, or anything on a page, is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// One tab.
pub struct Browser {
    process: Child,
    to: File,
    from: Receiver<Value>,
    session: String,
    asked: u64,
    /// What happened while answers were waited for.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one whose window is so many pixels wide, with an empty tab.
    pub fn start(width: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (to, from) = (profile.path().join("to"), profile.path().join("from"));
        for pipe in [&to, &from] {
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        // The shell gives it the two descriptors. It runs as root here, where its sandbox refuses to.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --disable-background-networking --disable-component-update --disable-extensions \
                      --remote-debugging-pipe --user-data-dir=\"$1/profile\" about:blank 3<\"$1/to\" 4>\"$1/from\"";
        let process = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let to = File::options().write(true).open(to).unwrap();
        let mut browser = Self {
            process,
            to,
            from: messages(&from),
            session: String::new(),
            asked: 0,
            events: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached =
            browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.resize(width);
        browser
    }

    pub fn resize(&mut self, width: u32) {
        let window = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", window);
    }

    pub fn go(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({ "url": url }));
        assert!(went.get("errorText").is_none(), "{went}");
    }

    /// What an expression amounts to on the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let request = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", request);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, expression: &str) {
        let started = Instant::now();
        while self.eval(expression) != true {
            let text = self.eval("document.body.innerText");
            assert!(started.elapsed() < DEADLINE, "waited in vain for {expression}: {text}");
        }
    }

    /// Presses a key that stands for a character. It goes where the focus is.
    pub fn press(&mut self, key: &str, character: char) {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { character.to_string() } else { String::new() };
            let event = json!({
                "type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": u32::from(character)
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// URLs that were asked for so far.
    pub fn requests(&mut self) -> Vec<String> {
        self.eval("0");
        let sent = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// What the page has thrown, and what the browser has complained of.
    pub fn complaints(&mut self) -> Vec<String> {
        self.eval("0");
        let kinds = ["Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"];
        let complaints = self.events.iter().filter(|event| kinds.iter().any(|kind| event["method"] == *kind));
        complaints.map(ToString::to_string).collect()
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({ "id": self.asked, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.to.write_all(&bytes).unwrap();
        loop {
            let answer = self.from.recv_timeout(DEADLINE).expect("an answer of the browser");
            if answer["id"] != self.asked {
                self.events.push(answer);
                continue;
            }
            assert!(answer.get("error").is_none(), "{method}: {answer}");
            return answer["result"].clone();
        }
    }
}

/// What the browser says, read as it comes.
fn messages(pipe: &Path) -> Receiver<Value> {
    let mut pipe = BufReader::new(File::open(pipe).unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        loop {
            let mut message = Vec::new();
            if pipe.read_until(0, &mut message).unwrap_or(0) == 0 {
                return;
            }
            message.pop();
            if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It is many processes, of one group.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).status();
        let _ = self.process.wait();
    }
}
