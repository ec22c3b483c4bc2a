//! What `bcai top` shows, and where.
//!
//! Owns: the sections, their lines, and the rates between two looks at the node.
//! Must not know: terminals' keys; how a node is asked.
//! Invariant: every line fits the width it is made for; what does not fit is cut, never wrapped over what is below.
//! Trust: names from datasets and peers are escaped. Threads: the main thread.

use std::collections::BTreeMap;
use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::cli::output;
use crate::cli::trace::took;
use crate::node::report::{AnswerCounts, Severity, Status};

/// Peers that are listed, those with the most traffic first.
const PEERS: usize = 8;
/// Columns of a bar.
const BAR: usize = 20;
const KEYS: &str = "q ends  space holds  arrows move";

/// What the node said, or why it said nothing.
pub struct Moment {
    pub at: Instant,
    pub status: Result<Status, String>,
}

/// The picture.
pub struct Screen {
    colour: bool,
    held: bool,
    /// The first line that is shown.
    top: usize,
    now: Option<Moment>,
    /// The last answer before that.
    before: Option<(Instant, Status)>,
}

/// What has been done by now, of which rates are made.
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    answers: f64,
    here: f64,
    elsewhere: f64,
    fetched_bytes: f64,
    /// Of the answers since the last look: the mean and an upper bound of 99 of 100, in microseconds.
    mean: u64,
    most: u64,
}

impl Screen {
    pub fn new(colour: bool) -> Self {
        Self { colour, held: false, top: 0, now: None, before: None }
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Stops the picture, or lets it go on.
    pub fn hold(&mut self) {
        self.held = !self.held;
    }

    pub fn scroll(&mut self, lines: i32) {
        self.top = match lines {
            i32::MIN => 0,
            i32::MAX => usize::MAX / 2,
            down if down > 0 => self.top.saturating_add(down as usize),
            up => self.top.saturating_sub(up.unsigned_abs() as usize),
        };
    }

    pub fn see(&mut self, moment: Moment) {
        if let Some(Moment { at, status: Ok(status) }) = self.now.replace(moment) {
            self.before = Some((at, status));
        }
    }

    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
                .areas(frame.area());
        let width = usize::from(body.width);
        let lines = self.lines(width);
        let room = usize::from(body.height);
        self.top = self.top.min(lines.len().saturating_sub(room));
        let shown: Vec<Line<'_>> = lines.into_iter().skip(self.top).take(room).collect();
        frame.render_widget(Paragraph::new(self.head(width)), head);
        frame.render_widget(Paragraph::new(shown), body);
        let held = if self.held { "held  " } else { "" };
        frame
            .render_widget(Paragraph::new(self.line(Color::DarkGray, &format!("{held}{KEYS}"), width)), foot);
    }

    fn line(&self, colour: Color, text: &str, width: usize) -> Line<'static> {
        let style = if self.colour { Style::new().fg(colour) } else { Style::new() };
        Line::from(Span::styled(cut(text, width), style))
    }

    fn head(&self, width: usize) -> Line<'static> {
        let text = match self.now.as_ref().map(|now| &now.status) {
            Some(Ok(status)) => format!(
                "bcai {} pid {}, up {}, {} resident, {}",
                status.version,
                status.pid,
                output::span(status.uptime_s as f64),
                output::size(status.resident_bytes),
                status.peer_id
            ),
            _ => "bcai".to_owned(),
        };
        self.line(Color::Cyan, &text, width)
    }

    fn lines(&self, width: usize) -> Vec<Line<'static>> {
        let Some(now) = &self.now else { return vec![self.line(Color::Reset, "asking the node", width)] };
        let status = match &now.status {
            Ok(status) => status,
            Err(error) => {
                return vec![
                    self.line(Color::Red, &output::safe(error), width),
                    self.line(Color::Reset, "trying again every second", width),
                ];
            }
        };
        let rates = self
            .before
            .as_ref()
            .map(|(at, before)| rates(before, status, now.at.saturating_duration_since(*at).as_secs_f64()));
        let mut rows = Vec::new();
        alerts(status, width, &mut rows);
        reads(status, rates.unwrap_or_default(), &mut rows);
        mounts(status, &mut rows);
        transfers(status, &mut rows);
        cache(status, &mut rows);
        peers(status, &mut rows);
        logs(status, &mut rows);
        rows.iter().map(|(colour, text)| self.line(*colour, text, width)).collect()
    }
}

type Rows = Vec<(Color, String)>;

fn title(rows: &mut Rows, text: String) {
    rows.push((Color::Yellow, text));
}

/// Whole, however narrow the screen is: they are what it is looked at for.
fn alerts(status: &Status, width: usize, rows: &mut Rows) {
    for alert in &status.alerts {
        let colour = if alert.severity >= Severity::Error { Color::Red } else { Color::Magenta };
        let text = wrapped(&format!("! {} {}", alert.severity, output::safe(&alert.text)), width);
        rows.extend(text.into_iter().map(|line| (colour, line)));
        let remedy = wrapped(&format!("    {}", output::safe(&alert.remedy)), width);
        rows.extend(remedy.into_iter().map(|line| (Color::Reset, line)));
    }
}

fn reads(status: &Status, rates: Rates, rows: &mut Rows) {
    title(rows, "READS".into());
    let times = match rates.most {
        _ if rates.answers < 0.5 => String::new(),
        u64::MAX => format!(", mean {}, 99% in more than 30 s", took(rates.mean)),
        most => format!(", mean {}, 99% in {}", took(rates.mean), took(most)),
    };
    rows.push((Color::Reset, format!("  {:.0} answers/s by the mounts{times}", rates.answers)));
    rows.push((
        Color::Reset,
        format!(
            "  {:.0} objects/s found here, {:.0} fetched, {} of content",
            rates.here,
            rates.elsewhere,
            output::rate(rates.fetched_bytes as u64, 1.0)
        ),
    ));
    let failed: u64 = status.answers.iter().map(|counts| counts.failed).sum();
    let fetch = &status.fetch;
    rows.push((
        Color::Reset,
        format!(
            "  since the start: {} fetched, {} failed, {} retried, {} corrupt",
            output::size(fetch.fetched_bytes),
            failed,
            fetch.retries,
            fetch.corrupt
        ),
    ));
}

fn mounts(status: &Status, rows: &mut Rows) {
    title(rows, format!("MOUNTS {}", status.mounts.len()));
    for mount in &status.mounts {
        let (dir, reference) =
            (output::safe(&mount.dir.display().to_string()), output::safe(&mount.reference));
        let version = mount
            .version
            .as_ref()
            .map_or(reference, |version| output::safe(&format!("{}@{}", version.name, version.version)));
        rows.push((
            Color::Reset,
            format!("  {dir}  {version}, {}, io {}", output::size(mount.bytes), mount.io),
        ));
    }
}

fn transfers(status: &Status, rows: &mut Rows) {
    title(rows, format!("TRANSFERS {}", status.transfers.len()));
    for job in &status.transfers {
        let done = match job.bytes_total {
            0 => format!("{} files", job.files_done),
            total => format!("{} {}", bar(job.bytes_done, total), output::size(total)),
        };
        let rate = match job.rate > 0.0 {
            true => format!(", {}", output::rate(job.rate as u64, 1.0)),
            false => String::new(),
        };
        let left = job.eta_s.map_or(String::new(), |left| format!(", {} left", output::span(left)));
        rows.push((
            Color::Reset,
            format!("  {} {} {done}{rate}{left}", job.kind, output::safe(&job.subject)),
        ));
    }
}

fn cache(status: &Status, rows: &mut Rows) {
    let cache = &status.cache;
    title(rows, "CACHE".into());
    rows.push((
        Color::Reset,
        format!(
            "  {} {} of {}, {} pinned",
            bar(cache.used_bytes, cache.max_bytes),
            output::size(cache.used_bytes),
            output::size(cache.max_bytes),
            output::size(cache.pinned_bytes)
        ),
    ));
    let hits = cache
        .hit_ratio
        .map_or("nothing was looked up yet".into(), |ratio| format!("{:.1}% hits", ratio * 100.0));
    rows.push((
        Color::Reset,
        format!(
            "  {hits}, {} evicted, {} not cached; {} published",
            cache.evicted,
            cache.bypassed,
            output::size(cache.published_bytes)
        ),
    ));
}

fn peers(status: &Status, rows: &mut Rows) {
    let connected = status.peers.iter().filter(|peer| peer.state == "connected");
    title(rows, format!("PEERS {} of {} connected", connected.count(), status.peers.len()));
    let mut peers: Vec<_> = status.peers.iter().collect();
    peers.sort_by(|a, b| (b.rate_in + b.rate_out).total_cmp(&(a.rate_in + a.rate_out)));
    for peer in peers.iter().take(PEERS) {
        let rtt = peer.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1} ms"));
        // Ids begin alike; their ends differ.
        let id: String = peer.peer_id.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect();
        rows.push((
            Color::Reset,
            format!(
                "  {id} {} {}, {rtt}, in {}, out {}",
                peer.state,
                peer.grade,
                output::rate(peer.rate_in as u64, 1.0),
                output::rate(peer.rate_out as u64, 1.0)
            ),
        ));
    }
    for origin in &status.origins {
        rows.push((
            Color::Reset,
            format!(
                "  {} in {}, {} failed",
                output::safe(&origin.url),
                output::size(origin.bytes_in),
                origin.failed
            ),
        ));
    }
}

fn logs(status: &Status, rows: &mut Rows) {
    title(rows, format!("LOGS {}", status.networks.len()));
    for network in &status.networks {
        let role = if network.validator { "decides" } else { "follows" };
        let age =
            network.head_age_s.map_or("empty".into(), |age| format!("head {} old", output::span(age as f64)));
        let (colour, role) = match &network.forked {
            Some(_) => (Color::Red, "FORKED"),
            None => (Color::Reset, role),
        };
        let id: String = network.genesis.chars().take(10).collect();
        rows.push((
            colour,
            format!("  {id} {role}, height {}, {age}, {} datasets", network.height, network.datasets),
        ));
    }
    for replicas in &status.replicas {
        rows.push((
            Color::Reset,
            format!(
                "  {} of {} storage nodes answer, {} versions on too few",
                replicas.alive,
                replicas.nodes,
                replicas.under.len()
            ),
        ));
    }
}

fn bar(part: u64, whole: u64) -> String {
    let share = output::percent(part.min(whole), whole);
    let full = (share / 100.0 * BAR as f64).round() as usize;
    format!("[{}{}] {share:3.0}%", "#".repeat(full), "-".repeat(BAR - full.min(BAR)))
}

/// A text in lines of at most so many characters where its words allow that, all but the first indented.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive(' ') {
        if !line.trim().is_empty() && line.chars().count() + word.trim_end().chars().count() > width {
            lines.push(std::mem::replace(&mut line, "    ".into()));
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// A text that has no more columns than there are.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        short.push('~');
    }
    short
}

/// What was done between two looks, so many seconds apart.
fn rates(before: &Status, now: &Status, seconds: f64) -> Rates {
    let seconds = seconds.max(1e-3);
    let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let known: BTreeMap<(&str, &str), &AnswerCounts> =
        before.answers.iter().map(|counts| ((&*counts.operation, &*counts.source), counts)).collect();
    let (mut answers, mut time, mut buckets): (u64, f64, BTreeMap<u64, u64>) = (0, 0.0, BTreeMap::new());
    for counts in &now.answers {
        let old = known.get(&(&*counts.operation, &*counts.source));
        answers += counts.answers.saturating_sub(old.map_or(0, |old| old.answers));
        time += (counts.seconds - old.map_or(0.0, |old| old.seconds)).max(0.0);
        for (at, (bound, number)) in counts.buckets.iter().enumerate() {
            let old = old.and_then(|old| old.buckets.get(at)).map_or(0, |(_, number)| *number);
            *buckets.entry(bound.unwrap_or(u64::MAX)).or_default() += number.saturating_sub(old);
        }
    }
    let mut sum = 0;
    let most = buckets.iter().find(|(_, number)| {
        sum += **number;
        sum as f64 >= answers as f64 * 0.99
    });
    Rates {
        answers: answers as f64 / seconds,
        here: per_second(now.fetch.local_hits, before.fetch.local_hits),
        elsewhere: per_second(now.fetch.fetched, before.fetch.fetched),
        fetched_bytes: per_second(now.fetch.fetched_bytes, before.fetch.fetched_bytes),
        mean: if answers == 0 { 0 } else { (time * 1e6 / answers as f64) as u64 },
        most: if answers == 0 { 0 } else { most.map_or(0, |(bound, _)| *bound) },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn status(answers: u64, alerts: usize) -> Status {
        let alert = json!({ "id": "disk", "severity": "error", "state": "active", "first_ms": 0, "last_ms": 0, "count": 1,
            "text": "the disk of the store is full\u{1b}[2J", "remedy": "free some" });
        let mount = json!({ "dir": "/mnt/a-directory-with-a-long-name/photos", "reference": "photos@v1", "snapshot": "ab",
            "inodes": 5, "bytes": 123_456_789, "version": null, "io": "zero-open" });
        let counts = json!({ "operation": "read", "source": "here", "answers": answers, "seconds": answers as f64 * 2e-3,
            "failed": 0, "buckets": [[1000, 0], [3000, answers], [null, 0]] });
        serde_json::from_value(json!({
            "version": "0.1.0", "pid": 4242, "uptime_s": 100, "resident_bytes": 50_000_000, "peer_id": "12D3KooWAbCdEfGh",
            "public_key": "", "addresses": [], "mounts": [mount], "alerts": vec![alert; alerts],
            "networks": [{ "genesis": "0123456789abcdef", "default": true, "validator": true, "height": 17, "head_age_s": 3, "datasets": 2 }],
            "store": { "objects": 1, "published_bytes": 2, "cached_bytes": 3, "cache_max_bytes": 4, "evicted": 0 },
            "fetch": { "local_hits": answers, "fetched": 0, "fetched_bytes": 0, "corrupt": 0, "retries": 0 },
            "cache": { "used_bytes": 50, "max_bytes": 100 },
            "peers": [{ "peer_id": "12D3KooWXyZ", "state": "connected", "grade": "good", "rate_in": 2_000_000.0 }],
            "transfers": [{ "kind": "pin", "subject": "photos@v1", "phase": "pinning", "files_done": 1, "files_total": 2,
                "bytes_done": 50, "bytes_total": 100, "rate": 10.0, "eta_s": 5.0, "running_s": 5.0 }],
            "answers": [counts],
        }))
        .unwrap()
    }

    fn shown(screen: &mut Screen, width: u16, height: u16) -> (String, bool) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let coloured = buffer.content().iter().any(|cell| cell.fg != Color::Reset);
        let rows = buffer.content().chunks(usize::from(width));
        let rows = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
        (rows.collect::<Vec<_>>().join("\n"), coloured)
    }

    fn screen(colour: bool, alerts: usize) -> Screen {
        let mut screen = Screen::new(colour);
        let at = Instant::now();
        screen.see(Moment { at, status: Ok(status(100, alerts)) });
        screen.see(Moment { at: at + Duration::from_secs(2), status: Ok(status(500, alerts)) });
        screen
    }

    #[test]
    fn everything_is_on_a_screen_of_eighty_columns_and_on_narrower_ones() {
        let (text, coloured) = shown(&mut screen(true, 1), 80, 24);
        for part in [
            "pid 4242",
            "! error the disk",
            "200 answers/s by the mounts, mean 2.0 ms, 99% in 3.0 ms",
            "200 objects/s found here",
            "photos@v1",
            "io zero-open",
            "pin photos@v1 [##########----------]  50%",
            "5 s left",
            "CACHE",
            "1 of 1 connected",
            "KooWXyZ connected good",
            "decides, height 17",
            "q ends",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(coloured && !text.contains('\x1b'));
        for (width, height) in [(40, 24), (20, 5), (1, 1), (3, 2)] {
            shown(&mut screen(true, 3), width, height);
        }
    }

    #[test]
    fn a_long_text_is_broken_between_words() {
        let lines = wrapped("! error the disk is nearly full", 16);
        assert_eq!(lines, ["! error the disk ", "    is nearly ", "    full"]);
        assert_eq!(wrapped("    do it", 80), ["    do it"]);
        assert_eq!(wrapped("averylongword indeed", 3), ["averylongword ", "    indeed"]);
    }

    #[test]
    fn without_colour_there_is_none_and_the_rest_can_be_scrolled_to() {
        let mut screen = screen(false, 0);
        let (text, coloured) = shown(&mut screen, 60, 8);
        assert!(!coloured && text.contains("READS") && !text.contains("LOGS"), "{text}");
        screen.scroll(i32::MAX);
        let (text, _) = shown(&mut screen, 60, 8);
        assert!(text.contains("decides, height 17") && !text.contains("READS"), "{text}");
        screen.scroll(i32::MIN);
        assert!(shown(&mut screen, 60, 8).0.contains("READS"));
    }

    #[test]
    fn a_node_that_is_away_is_said_to_be_and_waited_for() {
        let mut screen = screen(true, 0);
        screen.see(Moment { at: Instant::now(), status: Err("no daemon answers at /run/x".into()) });
        let (text, _) = shown(&mut screen, 80, 10);
        assert!(text.contains("no daemon answers") && text.contains("trying again"), "{text}");
    }
}
