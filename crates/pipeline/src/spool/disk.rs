//! A spool's folder: `SPOOL/SLUG/N/`, one N for each agent that runs at the same time.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FileType, FlockOperation, flock, ftruncate},
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::{Entry, EntryError, Head};
use crate::own_files::{Folder, Refused};
use model::text;

/// How long what an agent started may outlive it.
const LAST_BREATH: Duration = Duration::from_secs(2);
/// Agents that share a spool.
const MAX_AGENTS: u32 = 256;
/// An entry is never larger.
const MAX_ENTRY: u64 = 64 << 20;
/// Buried entries that are kept.
const MAX_BURIED: usize = 64;
const ENDING: &str = ".sealed";
const WRITING: &str = ".writing";
const REASON: &str = ".reason";
const LOCK: &str = ".lock";

/// Makes or finds a project's folder, `SPOOL/SLUG`; asked again after somebody removed it.
pub type Project = Box<dyn Fn() -> Result<Folder, Refused> + Send + Sync>;

/// The folder of a project in a spool that is one's own.
fn project_in(spool: &Path, slug: &str) -> Project {
    let (spool, slug) = (spool.to_owned(), slug.to_owned());
    Box::new(move || Folder::make(&spool)?.sub(&slug))
}

/// An agent's folder.
pub struct Disk {
    /// To make ours again.
    project: Project,
    held: RwLock<Arc<Held>>,
}

/// The folder that is in use.
struct Held {
    folder: Folder,
    number: u32,
    /// Held as long as the folder is.
    _lock: File,
}

/// Bytes of disk that a file takes: small ones take a block.
pub(super) fn room(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096)
}

/// Whether a disk or somebody's share of it is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Locks a folder; `None` where another agent has it. What an agent started may outlive it for a moment: then its end
/// is awaited, so that what it leaves is nobody's for no longer than that.
fn lock(folder: &Folder) -> Result<Option<File>, Refused> {
    let mut lock = folder.keep(LOCK)?;
    let until = Instant::now() + LAST_BREATH;
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        if holder_lives(folder) || Instant::now() > until {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(1));
    }
    // Only a hint.
    let _ = ftruncate(&lock, 0);
    let _ = write!(lock, "{}", agent());
    Ok(Some(lock))
}

/// The agent on whose behalf this process keeps a spool: its parent, where it was started for that.
fn agent() -> i32 {
    match KEEPER.get() {
        Some(pid) => *pid,
        None => std::process::id().cast_signed(),
    }
}

static KEEPER: OnceLock<i32> = OnceLock::new();

/// This process keeps a spool on behalf of another one, and dies with it.
pub fn keep_for(agent: u32) {
    let _ = KEEPER.set(agent.cast_signed());
}

/// Whether the agent that has a folder is there; `true` where nothing is known of it.
fn holder_lives(folder: &Folder) -> bool {
    let Ok(said) = folder.read(LOCK, 16) else {
        return true;
    };
    let said = String::from_utf8_lossy(&said);
    match said.parse().ok().and_then(Pid::from_raw) {
        Some(pid) => test_kill_process(pid) != Err(Errno::SRCH),
        None => true,
    }
}

/// The first folder of a project that no other agent has.
fn hold(project: &Project) -> Result<(Folder, Held), Refused> {
    let project = project()?;
    for number in 0..MAX_AGENTS {
        let folder = project.sub(&number.to_string())?;
        if let Some(lock) = lock(&folder)? {
            let held = Held {
                folder,
                number,
                _lock: lock,
            };
            return Ok((project, held));
        }
    }
    Err(Refused::System {
        path: project.path().to_owned(),
        error: io::Error::other("too many agents use it"),
    })
}

fn file_name(number: u64) -> String {
    format!("{number:020}{ENDING}")
}

fn writing_name(number: u64) -> String {
    format!("{number:020}{WRITING}")
}

/// The number in a file's name with this ending; `None` for names that the agent does not give.
fn number_of(name: &str, ending: &str) -> Option<u64> {
    name.strip_suffix(ending)
        .filter(|digits| digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
}

/// Entries in a folder, ascending. Other names are not the agent's, and are never touched.
fn numbers(folder: &Folder) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = folder
        .names()?
        .iter()
        .filter_map(|name| number_of(name, ENDING))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl Disk {
    /// Opens the first folder that no other agent has; answers what waits in it, in order, and what
    /// the user should know.
    ///
    /// # Errors
    /// Where the folder can't be made or read, or somebody else could change what is in it.
    pub fn open(spool: &Path, slug: &str) -> Result<(Self, Vec<Head>, Vec<String>), Refused> {
        Self::open_in(project_in(spool, slug))
    }

    /// The same in a project's folder that somebody else makes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(project: Project) -> Result<(Self, Vec<Head>, Vec<String>), Refused> {
        let (folder, held) = hold(&project)?;
        let failed = |error| Refused::System {
            path: held.folder.path().to_owned(),
            error,
        };
        let mut notes = held.adopt(&folder).map_err(failed)?;
        let heads = held.scan(&mut notes).map_err(failed)?;
        let disk = Self {
            project,
            held: RwLock::new(Arc::new(held)),
        };
        Ok((disk, heads, notes))
    }

    fn held(&self) -> Arc<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    /// Makes the folder again after somebody removed it.
    ///
    /// # Errors
    /// Where it can't be made, or is no longer one that may be used.
    pub fn make_again(&self) -> io::Result<()> {
        let (_, held) = hold(&self.project)?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
        Ok(())
    }

    /// Whether an entry's file is there.
    pub fn has(&self, number: u64) -> bool {
        let name = file_name(number);
        self.held().folder.has_own(&name, FileType::RegularFile)
    }

    /// Writes an entry's bytes to the disk, not yet under its name: several threads may do so at a time.
    ///
    /// # Errors
    /// Where they can't be written.
    pub fn prepare(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let (held, name) = (self.held(), writing_name(number));
        let mut file = held.folder.create(&name)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if written.is_err() {
            // A full disk: what was written takes the room that others need.
            let _ = held.folder.remove(&name);
        }
        written
    }

    /// Gives a prepared entry its name: from now on it is there, whole. It outlives a power loss after
    /// [`sync`](Self::sync).
    ///
    /// # Errors
    /// Where it was not prepared, or can't be renamed.
    pub fn publish(&self, number: u64) -> io::Result<()> {
        let held = self.held();
        let folder = &held.folder;
        folder.rename(&writing_name(number), folder, &file_name(number))
    }

    /// Makes the names of written entries last.
    ///
    /// # Errors
    /// Where the system can't.
    pub fn sync(&self) -> io::Result<()> {
        self.held().folder.sync()
    }

    /// The folder.
    pub fn folder(&self) -> PathBuf {
        self.held().folder.path().to_owned()
    }

    /// Reads an entry's bytes.
    ///
    /// # Errors
    /// Where it is not there, or too large to be one.
    pub fn read(&self, number: u64) -> Result<Vec<u8>, EntryError> {
        self.held().read(number)
    }

    /// Removes an entry.
    pub fn remove(&self, number: u64) {
        // Not synced: an entry that comes back after a power loss is sent twice, which is allowed.
        let _ = self.held().folder.remove(&file_name(number));
    }

    /// Puts an entry where it is kept for a look, with the reason.
    pub fn bury(&self, number: u64, reason: &str) {
        let Some(dead) = self.held().move_to("dead", number) else {
            return;
        };
        if let Ok(mut note) = dead.create(&format!("{number:020}{REASON}")) {
            let _ = writeln!(note, "{reason}");
        }
    }

    /// Puts a file aside that can't be read.
    pub fn set_aside(&self, number: u64) {
        self.held().move_to("set-aside", number);
    }
}

impl Held {
    /// Takes over what agents left that ran beside another one and do not run any more: nobody else
    /// would ever send it. Answers what the user should know.
    fn adopt(&self, project: &Folder) -> io::Result<Vec<String>> {
        let mut notes = Vec::new();
        let mut next = numbers(&self.folder)?.last().map_or(0, |last| last + 1);
        for other in (0..MAX_AGENTS).filter(|number| *number != self.number) {
            let opened = project.existing(&other.to_string());
            let locked = opened.and_then(|folder| {
                let locked = folder.as_ref().map(lock).transpose()?.flatten();
                Ok(folder.zip(locked))
            });
            let (folder, _lock) = match locked {
                Ok(Some(both)) => both,
                Ok(None) => continue,
                Err(refused) => {
                    notes.push(format!("not taken over: {refused}"));
                    continue;
                }
            };
            for number in numbers(&folder)? {
                let name = file_name(number);
                if folder.has_own(&name, FileType::RegularFile) {
                    folder.rename(&name, &self.folder, &file_name(next))?;
                    next += 1;
                }
            }
        }
        self.folder.sync()?;
        Ok(notes)
    }

    /// What waits. Only files that the agent has made itself are looked at.
    fn scan(&self, notes: &mut Vec<String>) -> io::Result<Vec<Head>> {
        let mut heads = Vec::new();
        for name in self.folder.names()? {
            if number_of(&name, WRITING).is_some() && self.is_own(&name) {
                // It was never finished.
                self.folder.remove(&name)?;
            }
            let Some(number) = number_of(&name, ENDING) else {
                continue;
            };
            let path = self.folder.path().join(&name);
            let shown = text::shown(&path.to_string_lossy());
            if !self.is_own(&name) {
                notes.push(format!("{shown}: no file of the agent's, left alone"));
                continue;
            }
            let read = self
                .read(number)
                .and_then(|bytes| Ok((bytes.len() as u64, Entry::from_bytes(&bytes)?)));
            match read {
                Ok((bytes, entry)) => heads.push(Head {
                    number,
                    kind: entry.kind,
                    count: entry.count,
                    bytes: room(bytes),
                }),
                Err(error) => {
                    self.move_to("set-aside", number);
                    notes.push(format!("{shown}: set aside: {error}"));
                }
            }
        }
        heads.sort_unstable_by_key(|head| head.number);
        Ok(heads)
    }

    fn is_own(&self, name: &str) -> bool {
        self.folder.has_own(name, FileType::RegularFile)
    }

    fn read(&self, number: u64) -> Result<Vec<u8>, EntryError> {
        match self.folder.read(&file_name(number), MAX_ENTRY) {
            Err(refused) if refused.is_missing() => Err(EntryError::Gone),
            Err(Refused::Large { .. } | Refused::Kind { .. } | Refused::Link { .. }) => {
                Err(EntryError::Torn)
            }
            read => Ok(read.map_err(io::Error::from)?),
        }
    }

    /// Moves an entry into a folder beside the entries, which is kept small.
    fn move_to(&self, folder: &str, number: u64) -> Option<Folder> {
        let folder = self.folder.sub(folder).ok()?;
        let name = file_name(number);
        let _ = self.folder.rename(&name, &folder, &name);
        let kept = numbers(&folder).ok()?;
        let surplus = kept.len().saturating_sub(MAX_BURIED);
        for number in kept.into_iter().take(surplus) {
            let _ = folder.remove(&format!("{number:020}{REASON}"));
            let _ = folder.remove(&file_name(number));
        }
        Some(folder)
    }
}
