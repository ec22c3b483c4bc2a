//! The machine that figures are from.
//!
//! Owns: what is worth knowing of it, read from /proc and /sys.
//! Must not know: its name or its user. Invariant: what cannot be found out is said to be unknown.
//! Trust: the kernel. Threads: plain functions.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub struct Machine {
    cpu: String,
    threads: usize,
    memory_gib: f64,
    kernel: String,
    pub file_system: String,
    disk: String,
    /// Processes that wanted to run in the last minute, before ours: figures of a busy machine say little.
    load: f64,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} hardware threads, {:.0} GiB of memory, Linux {}, {} on {}. Load average before the run: {:.1}.",
            self.cpu, self.threads, self.memory_gib, self.kernel, self.file_system, self.disk, self.load
        )
    }
}

/// Describes this machine and the disk below `dir`.
pub fn describe(dir: &Path) -> anyhow::Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let unknown = || "unknown".to_owned();
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.trim_end_matches("kB").trim().parse::<f64>().ok());
    let load = read("/proc/loadavg").split(' ').next().and_then(|text| text.parse().ok());
    let device = fs::metadata(dir)?.dev();
    let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    Ok(Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
        threads: std::thread::available_parallelism().map_or(1, |count| count.get()),
        memory_gib: memory.unwrap_or(0.0) / f64::from(1 << 20),
        kernel: release(&read("/proc/sys/kernel/osrelease")),
        file_system: file_system(&read("/proc/self/mountinfo"), &numbers).unwrap_or_else(unknown),
        disk: disk(Path::new("/sys/dev/block").join(&numbers).as_path()).unwrap_or_else(unknown),
        load: load.unwrap_or(0.0),
    })
}

/// The version of a kernel without what its builder calls it: `6.18.44` of `6.18.44-foo`.
fn release(text: &str) -> String {
    text.trim().split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or_default().to_owned()
}

/// The type of the file system on a device, from the table of mounts (`proc_pid_mountinfo(5)`).
fn file_system(mounts: &str, device: &str) -> Option<String> {
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    let (_, after) = line.split_once(" - ")?;
    after.split(' ').next().map(str::to_owned)
}

/// Kind and size of a block device, or of the disk that a partition is on.
fn disk(device: &Path) -> Option<String> {
    let device = device.canonicalize().ok()?;
    let whole = if device.join("partition").exists() { device.parent()?.to_owned() } else { device.clone() };
    let read = |file: &str| fs::read_to_string(whole.join(file)).ok().map(|text| text.trim().to_owned());
    // In sectors of 512 bytes, whatever the disk's own are.
    let gib = read("size")?.parse::<f64>().ok()? / f64::from(1 << 21);
    let turning = read("queue/rotational")? == "1";
    let kind = if device.starts_with("/sys/devices/virtual")
        || read("device/vendor").is_some_and(|id| id.starts_with("0x"))
    {
        "a virtual disk"
    } else if turning {
        "a hard disk"
    } else {
        "an SSD"
    };
    Some(format!("{kind} of {gib:.0} GiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_device() {
        let mounts = "21 28 0:19 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n28 1 259:2 / / rw shared:1 - ext4 /dev/x rw\n";
        assert_eq!(file_system(mounts, "259:2").as_deref(), Some("ext4"));
        assert_eq!(file_system(mounts, "259:3"), None);
    }

    #[test]
    fn a_kernel_is_named_by_its_version_alone() {
        assert_eq!(release("6.18.44-foo-v2\n"), "6.18.44");
        assert_eq!(release("6.12.0"), "6.12.0");
    }

    #[test]
    fn this_machine_can_be_described() {
        let machine = describe(Path::new("/")).expect("describes");
        assert!(machine.threads > 0 && machine.memory_gib > 0.1 && !machine.kernel.is_empty());
    }
}
