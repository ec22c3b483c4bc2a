//! A link with a rate and a delay, as a forwarder of TCP: kernels without `netem` have no other.
//!
//! Owns: the hidden command `distance`, and when each byte has arrived at the other end.
//! Must not know: what is forwarded.
//! Invariant: it ends when its input does. In either direction all connections share one link, which carries one piece after the
//! other; each byte is delayed by half of the round trip besides. While [`QUEUE`] waits for the link, nothing more is read:
//! the senders' own queues fill then, and nothing is lost.
//! Trust: as `swarm`. Threads: four for each connection, which end with it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use bcai_lan::Rate;
use clap::Args;

/// Bytes that go through a link at a time.
const PIECE: usize = 8 << 10;
/// How much waits for a link before nothing more is read, as the time that the link needs for it.
const QUEUE: Duration = Duration::from_millis(20);

/// A link with a rate and a delay, for measurements
#[derive(Debug, Args)]
#[command(hide = true)]
pub struct Distance {
    #[arg(long)]
    listen: SocketAddr,
    /// Whom each connection leads to
    #[arg(long)]
    to: SocketAddr,
    /// In either direction
    #[arg(long)]
    rate: Rate,
    /// Milliseconds there and back
    #[arg(long)]
    rtt: u32,
}

/// One direction.
#[derive(Debug)]
struct Link {
    /// Bytes a second.
    rate: f64,
    delay: Duration,
    /// When it has carried everything that was given to it.
    free_at: Mutex<Option<Instant>>,
}

impl Link {
    /// When so many bytes, given to it now, have left, and when they are at the other end.
    fn carry(&self, now: Instant, bytes: usize) -> (Instant, Instant) {
        // One value is set at a time.
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = free_at.map_or(now, |at| at.max(now));
        let left = begin + Duration::from_secs_f64(bytes as f64 / self.rate);
        *free_at = Some(left);
        (left, left + self.delay)
    }
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

impl Distance {
    pub fn run(self) -> anyhow::Result<()> {
        let Self { listen, to, rate, rtt } = self;
        let delay = Duration::from_millis(rtt.into()) / 2;
        let link = || Arc::new(Link { rate: rate.bytes_per_second(), delay, free_at: Mutex::default() });
        let (there, back) = (link(), link());
        let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
        println!("{}", serde_json::json!({ "listens": listen.to_string() }));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let Err(error) = join(near, to, &there, &back) {
                    eprintln!("cannot forward to {to}: {error}");
                }
            }
        });
        // It ends with its owner.
        io::copy(&mut io::stdin(), &mut io::sink()).context("cannot wait")?;
        Ok(())
    }
}

/// Forwards between a connection and a new one to `to`.
fn join(near: TcpStream, to: SocketAddr, there: &Arc<Link>, back: &Arc<Link>) -> io::Result<()> {
    let far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    for (from, to, link) in [(near.try_clone()?, far.try_clone()?, there.clone()), (far, near, back.clone())]
    {
        // What is on the link at a time, and no more: whoever does not take it makes the sender wait.
        let on_the_way = link.rate * (link.delay + QUEUE).as_secs_f64() / PIECE as f64;
        let (sender, receiver) = sync_channel(2 * on_the_way as usize + 16);
        thread::spawn(move || take(from, &link, &sender));
        thread::spawn(move || give(to, &receiver));
    }
    Ok(())
}

/// Reads as fast as the link carries it.
fn take(mut from: TcpStream, link: &Link, sender: &SyncSender<(Instant, Vec<u8>)>) {
    let mut piece = [0; PIECE];
    while let Ok(bytes @ 1..) = from.read(&mut piece) {
        let (left, arrives) = link.carry(Instant::now(), bytes);
        if sender.send((arrives, piece[..bytes].to_vec())).is_err() {
            break;
        }
        if let Some(full) = left.checked_sub(QUEUE) {
            sleep_until(full);
        }
    }
}

/// Writes when it has arrived.
fn give(mut to: TcpStream, receiver: &Receiver<(Instant, Vec<u8>)>) {
    for (arrives, piece) in receiver {
        sleep_until(arrives);
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    // Whoever has closed it already has done what is meant.
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_carries_one_piece_after_the_other_and_all_of_them_late() {
        let (delay, free_at) = (Duration::from_millis(10), Mutex::default());
        let link = Link { rate: 1e6, delay, free_at };
        let now = Instant::now();
        let after = |ms: u64| now + Duration::from_millis(ms);
        assert_eq!(link.carry(now, 5_000), (after(5), after(15)));
        assert_eq!(link.carry(now, 5_000), (after(10), after(20)), "it waits for the first");
        assert_eq!(link.carry(after(50), 1_000), (after(51), after(61)), "a pause saves nothing");
    }

    #[test]
    fn what_is_sent_comes_back_whole_and_not_before_its_time() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap();
        thread::spawn(move || {
            let (stream, _) = echo.accept().unwrap();
            io::copy(&mut stream.try_clone().unwrap(), &mut &stream).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let delay = Duration::from_millis(20);
        let link = || Arc::new(Link { rate: 1e9, delay, free_at: Mutex::default() });
        let front = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
        join(front.accept().unwrap().0, to, &link(), &link()).unwrap();
        let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let begun = Instant::now();
        client.write_all(&sent).unwrap();
        let mut came = vec![0; sent.len()];
        client.read_exact(&mut came).unwrap();
        assert!(came == sent && begun.elapsed() >= 2 * delay);
    }
}
