//! Who a process is, by `/proc`'s own text. A process that ends meanwhile is told as far as it was read.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
};

use procfs::process::Process as ProcProcess;

use super::face;
use model::{ContainerId, Namespaces, ProcessIdentity, text};

/// Bytes of a process's control groups that are read; version 1 has a line for each of about a dozen controllers.
const MAX_CGROUPS: u64 = 64 << 10;
/// Characters of an executable's path that are kept.
const MAX_PATH: usize = 512;

/// Looks at a process; `None` where there is none.
pub fn identity(pid: u32) -> Option<ProcessIdentity> {
    let stat = ProcProcess::new(i32::try_from(pid).ok()?)
        .ok()?
        .stat()
        .ok()?;
    let face = face(pid);
    let executable = fs::read_link(format!("/proc/{face}/exe")).ok();
    Some(ProcessIdentity {
        pid,
        start_time: stat.starttime,
        comm: text::escape(&stat.comm, 32),
        executable: executable.map(|path| text::escape(&path.to_string_lossy(), MAX_PATH)),
        container: cgroups(pid).and_then(|text| ContainerId::in_cgroups(&text)),
        namespaces: namespaces(face),
    })
}

fn cgroups(pid: u32) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/cgroup")).ok()?;
    let mut text = Vec::new();
    file.take(MAX_CGROUPS).read_to_end(&mut text).ok()?;
    // The names of folders are bytes.
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn namespaces(face: u32) -> Option<Namespaces> {
    let of = |kind: &str| {
        let metadata = fs::metadata(format!("/proc/{face}/ns/{kind}"));
        metadata.ok().map(|metadata| metadata.ino())
    };
    Some(Namespaces {
        mount: of("mnt")?,
        pid: of("pid")?,
        network: of("net")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ourselves() {
        let own = identity(std::process::id()).unwrap();
        assert!(own.start_time > 0 && !own.comm.is_empty(), "{own:?}");
        let program = std::env::current_exe().unwrap();
        assert_eq!(own.executable.as_deref(), program.to_str());
        let mount = fs::metadata("/proc/self/ns/mnt").unwrap().ino();
        assert_eq!(own.namespaces.unwrap().mount, mount);
        // PID_MAX_LIMIT is 2^22.
        assert_eq!(identity(1 << 23), None);
    }
}
