//! A process dies by a signal: where, and whether our breakpoints may have been the cause. Facts in,
//! verdict out.

use std::collections::HashMap;

use teracron_common::ProbeId;

use super::placed::{Mapping, PlacedFile};
use image::FileKey;
use model::{signal_name, text};
use tracer::decode::Dying;

/// What has been told of one by one; more are only counted.
pub(super) const TOLD: u64 = 20;

/// The unit of memory in which a breakpoint makes a page of the file the process's own.
const PAGE: u64 = 4096;
/// Nothing is mapped below: a jump there is a null pointer's.
const LOWEST: u64 = 0x1_0000;

/// `si_code` of what the kernel sends without more to say, an `int3` among it.
const SI_KERNEL: i32 = 0x80;

/// Where a process died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The instruction.
    pub address: u64,
    /// File that was mapped there, escaped, and the offset in it.
    pub module: Option<(String, u64)>,
    /// The probe whose function begins nearest before, where the file has any.
    pub probe: Option<ProbeId>,
}

/// What is thought of a death.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Where it was.
    pub place: Option<Place>,
    /// Files whose breakpoints may have been the cause.
    pub suspects: Vec<FileKey>,
}

/// Whether somebody asked for the end: it is no failure of the process.
pub(super) fn is_asked_for(signal: u32) -> bool {
    matches!(signal as i32, libc::SIGTERM | libc::SIGINT | libc::SIGHUP)
}

/// The instruction that a signal is about.
fn instruction(dying: &Dying) -> Option<u64> {
    let ip = dying.ip?;
    // A breakpoint instruction has been passed when it is noticed.
    let is_int3 = dying.signal as i32 == libc::SIGTRAP && dying.code == SI_KERNEL;
    Some(if is_int3 { ip.saturating_sub(1) } else { ip })
}

/// Looks at a death.
pub(super) fn judge(
    dying: &Dying,
    mappings: &[Mapping],
    files: &HashMap<FileKey, PlacedFile>,
) -> Verdict {
    let Some(address) = instruction(dying) else {
        return Verdict::default();
    };
    let found = mappings
        .iter()
        .find_map(|mapping| Some((mapping, mapping.offset_of(address)?)));
    let place = Place {
        address,
        module: found.map(|(mapping, offset)| (text::shown(&mapping.name), offset)),
        probe: found.and_then(|(mapping, offset)| files.get(&mapping.file)?.probe_before(offset)),
    };
    // What a process was sent by itself (`abort`) or by others is no consequence of an instruction.
    let suspects = if dying.code <= 0 {
        Vec::new()
    } else if found.is_some() {
        beside(address, mappings, files)
    } else {
        elsewhere(dying, address, mappings, files)
    };
    Verdict {
        place: Some(place),
        suspects,
    }
}

/// Files with a breakpoint on the page of an address, or on one of its neighbours.
fn beside(
    address: u64,
    mappings: &[Mapping],
    files: &HashMap<FileKey, PlacedFile>,
) -> Vec<FileKey> {
    let page = address / PAGE;
    let (first, end) = (
        page.saturating_sub(1) * PAGE,
        page.saturating_add(2).saturating_mul(PAGE),
    );
    with_site(mappings, files, |mapping, offset, _| {
        mapping
            .address_of(offset)
            .is_some_and(|address| (first..end).contains(&address))
    })
}

/// The address is in no file: in code that the program made, or moved.
fn elsewhere(
    dying: &Dying,
    address: u64,
    mappings: &[Mapping],
    files: &HashMap<FileKey, PlacedFile>,
) -> Vec<FileKey> {
    match dying.signal as i32 {
        // Text moves by whole pages, and takes our breakpoints along.
        libc::SIGTRAP => with_site(mappings, files, |_, offset, _| {
            offset % PAGE == address % PAGE
        }),
        // Return addresses that we changed, on a stack that the kernel does not know; else whatever is probed.
        libc::SIGILL => {
            let returns = with_site(mappings, files, |_, _, on_return| on_return);
            if returns.is_empty() {
                traced(mappings, files)
            } else {
                returns
            }
        }
        // A call that the kernel made of a nop leads nowhere (forked children on 6.18).
        libc::SIGSEGV if dying.detail == address && address >= LOWEST => traced(mappings, files),
        _ => Vec::new(),
    }
}

/// Files of which the process has a site mapped that is as wanted.
fn with_site(
    mappings: &[Mapping],
    files: &HashMap<FileKey, PlacedFile>,
    wanted: impl Fn(&Mapping, u64, bool) -> bool,
) -> Vec<FileKey> {
    let of = |mapping: &Mapping| {
        files.get(&mapping.file).is_some_and(|file| {
            file.sites.iter().any(|site| {
                mapping.address_of(site.offset).is_some()
                    && wanted(mapping, site.offset, site.on_return)
            })
        })
    };
    keys(mappings.iter().filter(|mapping| of(mapping)))
}

fn traced(mappings: &[Mapping], files: &HashMap<FileKey, PlacedFile>) -> Vec<FileKey> {
    keys(mappings.iter().filter(|mapping| {
        files
            .get(&mapping.file)
            .is_some_and(|file| file.traced && !file.sites.is_empty())
    }))
}

fn keys<'a>(mappings: impl Iterator<Item = &'a Mapping>) -> Vec<FileKey> {
    let mut keys: Vec<FileKey> = mappings.map(|mapping| mapping.file).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// ` at 0x55810000 (shop+0x1139, in or after f)`, or nothing. `name` tells a probe's function.
pub(super) fn place_text(
    place: Option<&Place>,
    name: impl Fn(ProbeId) -> Option<String>,
) -> String {
    let Some(place) = place else {
        return String::new();
    };
    let mut line = format!(" at {:#x}", place.address);
    match &place.module {
        Some((module, offset)) => {
            line.push_str(&format!(" ({module}+{offset:#x}"));
            if let Some(name) = place.probe.and_then(name) {
                line.push_str(&format!(", in or after {}", text::shown(&name)));
            }
            line.push(')');
        }
        None => line.push_str(" (in no file)"),
    }
    line
}

/// `process 12 (shop) was killed by SIGSEGV at …`.
pub(super) fn killed_text(pid: u32, comm: &str, signal: u32, place: &str) -> String {
    let how = if is_asked_for(signal) {
        "stopped"
    } else {
        "killed"
    };
    format!(
        "process {pid} ({comm}) was {how} by {}{place}",
        signal_name(signal)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::placed::PlacedSite;
    use image::Image;
    use std::sync::Arc;

    fn key(ino: u64) -> FileKey {
        FileKey {
            dev: 1,
            ino,
            changed: (0, 0),
            size: 0,
        }
    }

    fn file(ino: u64, traced: bool, sites: &[(u64, Option<u32>, bool)]) -> (FileKey, PlacedFile) {
        let image = Image {
            path: String::new(),
            is_main: false,
            file: Arc::new(std::fs::File::open("/dev/null").unwrap()),
            key: key(ino),
            debug: Default::default(),
        };
        let sites = sites
            .iter()
            .map(|(offset, probe, on_return)| PlacedSite {
                offset: *offset,
                probe: probe.map(ProbeId),
                on_return: *on_return,
            })
            .collect();
        let placed = PlacedFile {
            image,
            traced,
            sites,
        };
        (key(ino), placed)
    }

    /// `shop` with two sites, `libc` with one of the agent's own, `other` without.
    fn world() -> (Vec<Mapping>, HashMap<FileKey, PlacedFile>) {
        let mapping = |start: u64, ino: u64, name: &str| Mapping {
            start,
            end: start + 0x8000,
            offset: 0x1000,
            file: key(ino),
            name: name.into(),
        };
        (
            vec![
                mapping(0x50_0000, 1, "shop"),
                mapping(0x70_0000, 2, "libc.so.6"),
                mapping(0x90_0000, 3, "other"),
            ],
            HashMap::from([
                file(1, true, &[(0x1139, Some(7), false), (0x1150, None, false)]),
                file(2, false, &[(0x2222, None, false)]),
            ]),
        )
    }

    fn dying(signal: i32, code: i32, ip: u64, detail: u64) -> Dying {
        Dying {
            pid: 1,
            tid: 1,
            at_ns: 0,
            signal: signal as u32,
            code,
            ip: Some(ip),
            detail,
        }
    }

    fn suspects(dying: &Dying) -> Vec<u64> {
        let (mappings, files) = world();
        let verdict = judge(dying, &mappings, &files);
        verdict.suspects.iter().map(|key| key.ino).collect()
    }

    #[test]
    fn our_own_breakpoint_is_suspected_and_named() {
        let (mappings, files) = world();
        // int3 at 0x1139 of the file; the instruction pointer is behind it.
        let trap = dying(libc::SIGTRAP, SI_KERNEL, 0x50_013a, 0);
        let verdict = judge(&trap, &mappings, &files);
        assert_eq!(verdict.suspects, [key(1)]);
        let text = place_text(verdict.place.as_ref(), |probe| {
            Some(format!("f{}", probe.0))
        });
        assert_eq!(text, " at 0x500139 (shop+0x1139, in or after f7)");
        assert_eq!(
            killed_text(12, "shop", 5, &text),
            "process 12 (shop) was killed by SIGTRAP at 0x500139 (shop+0x1139, in or after f7)"
        );
    }

    #[test]
    fn neighbouring_pages_are_suspected_and_no_others() {
        for (ip, expected) in [
            (0x50_0000, vec![1]),
            (0x50_1fff, vec![1]),
            (0x50_2000, vec![]),
            (0x70_0fff, vec![2]),
            (0x70_3000, vec![]),
            (0x90_0139, vec![]),
        ] {
            assert_eq!(
                suspects(&dying(libc::SIGSEGV, 1, ip, 8)),
                expected,
                "{ip:x}"
            );
            // Sent by itself or by another process.
            assert!(suspects(&dying(libc::SIGSEGV, 0, ip, 8)).is_empty());
            assert!(suspects(&dying(libc::SIGABRT, -6, ip, 8)).is_empty());
        }
    }

    #[test]
    fn moved_text_keeps_its_place_in_the_page() {
        let at = |low: u64| dying(libc::SIGTRAP, SI_KERNEL, 0xaa_0000 + low + 1, 0);
        assert_eq!(suspects(&at(0x139)), [1]);
        assert_eq!(suspects(&at(0x222)), [2]);
        // A breakpoint of the program's own.
        assert!(suspects(&at(0x13a)).is_empty());
        // SIGILL there: the traced file.
        assert_eq!(suspects(&dying(libc::SIGILL, 2, 0xaa_0000, 0)), [1]);
        assert!(suspects(&dying(libc::SIGFPE, 1, 0xaa_0000, 0)).is_empty());
    }

    #[test]
    fn return_probes_are_suspected_first() {
        let (mappings, mut files) = world();
        let (other, placed) = file(3, true, &[(0x1100, Some(1), true)]);
        files.insert(other, placed);
        let verdict = judge(&dying(libc::SIGILL, 0x80, 0xaa_0000, 0), &mappings, &files);
        assert_eq!(verdict.suspects, [key(3)]);
    }

    #[test]
    fn a_jump_to_nowhere_is_suspected_a_null_call_is_not() {
        assert_eq!(
            suspects(&dying(libc::SIGSEGV, 1, 0x4f_f000, 0x4f_f000)),
            [1]
        );
        assert!(suspects(&dying(libc::SIGSEGV, 1, 0, 0)).is_empty());
        assert!(suspects(&dying(libc::SIGSEGV, 1, 0x4f_f000, 8)).is_empty());
    }

    #[test]
    fn without_an_address_nothing_is_thought() {
        let (mappings, files) = world();
        let mut unknown = dying(libc::SIGTRAP, SI_KERNEL, 1, 0);
        unknown.ip = None;
        assert_eq!(judge(&unknown, &mappings, &files), Verdict::default());
        assert_eq!(place_text(None, |_| None), "");
        assert_eq!(
            killed_text(1, "a", 15, ""),
            "process 1 (a) was stopped by SIGTERM"
        );
        assert!(is_asked_for(1) && is_asked_for(2) && is_asked_for(15) && !is_asked_for(9));
    }

    #[test]
    fn absurd_addresses_do_no_harm() {
        let (mut mappings, files) = world();
        mappings.push(Mapping {
            start: u64::MAX - 10,
            end: u64::MAX,
            offset: u64::MAX - 5,
            file: key(1),
            name: "x\u{1b}[31m".into(),
        });
        for ip in [1, u64::MAX, u64::MAX - 1, u64::MAX - 9] {
            for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL] {
                let verdict = judge(&dying(signal, 0x80, ip, ip), &mappings, &files);
                assert!(!place_text(verdict.place.as_ref(), |_| None).contains('\u{1b}'));
            }
        }
    }
}
