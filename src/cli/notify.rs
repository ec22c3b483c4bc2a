//! Telling the service manager how far the daemon is.
//!
//! Owns: the socket that systemd names in `NOTIFY_SOCKET` (sd_notify(3)). Must not know: units.
//! Invariant: where nobody asked to be told, nothing happens; a manager that does not listen is no reason to fail.
//! Trust: the environment is the user's. Threads: any.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The daemon answers; it is about to end.
pub const READY: &str = "READY=1";
pub const STOPPING: &str = "STOPPING=1";

/// Says one of the above.
pub fn tell(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&name, state) {
        tracing::warn!(%error, "the service manager cannot be told: {state}");
    }
}

fn send(name: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', hidden @ ..] => SocketAddr::from_abstract_name(hidden)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_a_path_and_at_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let hidden = format!("bcai-test-{}", std::process::id());
        let at_name = SocketAddr::from_abstract_name(&hidden).unwrap();
        let sockets = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&at_name).unwrap()];
        for (name, socket) in [path.into_os_string(), format!("@{hidden}").into()].iter().zip(sockets) {
            send(name, READY).unwrap();
            let mut heard = [0; 16];
            let len = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..len], READY.as_bytes());
        }
        assert!(send(OsStr::new("/nobody/there"), READY).is_err());
    }
}
