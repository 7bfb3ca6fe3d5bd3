//! Who a process is.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Who a process is, as it was when it was looked at. Ids of processes are used again: with its start time it is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessIdentity {
    /// Process id, as the agent sees it.
    pub pid: u32,
    /// Clock ticks from boot to its start; 0: not known.
    pub start_time: u64,
    /// Its name, at most 15 bytes, escaped; empty: not known.
    pub comm: String,
    /// Path of its executable in its own mount namespace, escaped.
    pub executable: Option<String>,
    /// The container that its control group names.
    pub container: Option<ContainerId>,
    /// Its namespaces; `None`: not known.
    pub namespaces: Option<Namespaces>,
}

impl ProcessIdentity {
    /// Of a process of which nothing is known but its id.
    pub fn only(pid: u32) -> Arc<Self> {
        Arc::new(Self {
            pid,
            ..Self::default()
        })
    }
}

/// Inode numbers of namespaces (namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Of mounts.
    pub mount: u64,
    /// Of process ids.
    pub pid: u64,
    /// Of the network.
    pub network: u64,
}

/// The id that a container runtime gave a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ContainerId(Arc<str>);

/// Hexadecimal digits of an id of Docker, containerd, CRI-O and Podman.
const DIGITS: usize = 64;
/// Those of a task on ECS, which has the container's number behind it.
const TASK_DIGITS: usize = 32;

impl ContainerId {
    /// Finds it in what `/proc/PID/cgroup` says (cgroups(7)): in version 1 a line for each controller, in version 2 one
    /// line. The innermost container counts.
    pub fn in_cgroups(text: &str) -> Option<Self> {
        text.lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .find_map(|path| path.rsplit('/').find_map(Self::in_component))
    }

    /// `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID`, `libpod-ID.scope`, a plain `ID`; `crio-conmon-ID` is
    /// what watches a container.
    fn in_component(component: &str) -> Option<Self> {
        let name = component.strip_suffix(".scope").unwrap_or(component);
        if name.contains("conmon") {
            return None;
        }
        let id = name.rsplit(['-', ':']).next()?;
        if is_hex(id, DIGITS) {
            return Some(Self(id.into()));
        }
        let (task, number) = name.split_once('-')?;
        let is_task = is_hex(task, TASK_DIGITS)
            && !number.is_empty()
            && number.len() <= 20
            && number.bytes().all(|byte| byte.is_ascii_digit());
        is_task.then(|| Self(name.into()))
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl TryFrom<String> for ContainerId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::in_component(&text)
            .filter(|id| *id.0 == *text)
            .ok_or("not the id of a container")
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "4a6f1c0de2b97a8834c1d5f0b6e7a9c8d1e2f3a4b5c6d7e8f90123456789abcd";

    fn found(text: &str) -> Option<String> {
        ContainerId::in_cgroups(text).map(String::from)
    }

    #[test]
    fn each_runtime_writes_it_in_its_own_way() {
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/kubepods/burstable/pod3d5f2e5a-8a70-4b6e-9f0e-1f1a2b3c4d5e/ID",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod3d5f2e5a_8a70.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-pod1.slice/crio-ID.scope",
            "/kubepods.slice/kubepods-pod1.slice/kubepods-pod1.slice:cri-containerd:ID",
            "/machine.slice/libpod-ID.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            "/../../docker-ID.scope/init",
            "/ecs/0a1b2c3d4e5f60718293a4b5c6d7e8f9/ID",
        ] {
            let path = path.replace("ID", ID);
            assert_eq!(
                found(&format!("0::{path}\n")).as_deref(),
                Some(ID),
                "{path}"
            );
            let first = format!("12:pids:{path}\n11:memory:{path}\n1:name=systemd:{path}\n0::/\n");
            assert_eq!(found(&first).as_deref(), Some(ID), "{path}");
        }
        let task = "0a1b2c3d4e5f60718293a4b5c6d7e8f9-2531612879";
        let path = format!("0::/ecs/prod/{task}\n");
        assert_eq!(found(&path).as_deref(), Some(task));
    }

    #[test]
    fn a_host_has_none() {
        for path in [
            "/",
            "/init.scope",
            "/user.slice/user-0.slice/session-1.scope",
            "/system.slice/ssh.service",
            "/machine.slice/crio-conmon-ID.scope",
            "/system.slice/IDID.scope",
            "/system.slice/run-0a1b2c3d4e5f60718293a4b5c6d7e8f9.scope",
        ] {
            assert_eq!(
                found(&format!("0::{}\n", path.replace("ID", ID))),
                None,
                "{path}"
            );
        }
    }

    #[test]
    fn the_innermost_counts() {
        let inner = ID.replace('4', "5");
        let text = format!("0::/docker/{ID}/docker/{inner}\n");
        assert_eq!(found(&text), Some(inner));
    }

    proptest! {
        #[test]
        fn whatever_is_found_is_an_id(text in "([0-9]:[a-z]{0,3}:(/[-:a-f0-9.]{0,70}){0,4}\n){0,4}|\\PC{0,80}") {
            if let Some(id) = ContainerId::in_cgroups(&text) {
                let text = String::from(id.clone());
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
                prop_assert_eq!(ContainerId::try_from(text), Ok(id));
            }
        }
    }
}
