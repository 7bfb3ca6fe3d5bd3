//! A spool's folder: `SPOOL/SLUG/N/`, one N for each agent that runs at the same time.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use super::{Entry, EntryError, Head};
use model::text;

/// Agents that share a spool.
const MAX_AGENTS: u32 = 256;
/// An entry is never larger.
const MAX_ENTRY: u64 = 64 << 20;
/// Buried entries that are kept.
const MAX_BURIED: usize = 64;
const ENDING: &str = ".sealed";
const WRITING: &str = ".writing";
const LOCK: &str = ".lock";

/// An agent's folder.
pub struct Disk {
    folder: PathBuf,
    /// The folder itself, to sync what is renamed in it.
    handle: File,
    /// Held as long as the agent runs.
    _lock: File,
}

/// Bytes of disk that a file takes: small ones take a block.
pub fn room(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096)
}

fn make_folder(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
    }
    Ok(())
}

/// Locks a folder; `None` where another agent has it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let lock = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(folder.join(LOCK))?;
    let held = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    Ok(held.then_some(lock))
}

fn file_name(number: u64) -> String {
    format!("{number:020}{ENDING}")
}

/// The number of an entry's file; `None` for other names.
fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(ENDING)
        .filter(|digits| digits.len() == 20)
        .and_then(|digits| digits.parse().ok())
}

/// Entries in a folder, ascending.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = fs::read_dir(folder)?
        .flatten()
        .filter_map(|entry| number_of(entry.file_name().to_str()?))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

impl Disk {
    /// Opens the first folder that no other agent has; answers what waits in it, in order, and what
    /// the user should know.
    ///
    /// # Errors
    /// Where the folder can't be made or read.
    pub fn open(spool: &Path, slug: &str) -> io::Result<(Self, Vec<Head>, Vec<String>)> {
        let project = spool.join(slug);
        make_folder(&project)?;
        for number in 0..MAX_AGENTS {
            let folder = project.join(number.to_string());
            make_folder(&folder)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
            let Some(lock) = lock(&folder)? else {
                continue;
            };
            let disk = Self {
                handle: File::open(&folder)?,
                folder,
                _lock: lock,
            };
            disk.adopt(&project, number)?;
            let (heads, notes) = disk.scan()?;
            return Ok((disk, heads, notes));
        }
        Err(io::Error::other("too many agents use it"))
    }

    /// Takes over what agents left that ran beside another one and do not run any more: nobody else
    /// would ever send it.
    fn adopt(&self, project: &Path, own: u32) -> io::Result<()> {
        let mut next = numbers(&self.folder)?.last().map_or(0, |last| last + 1);
        for other in (0..MAX_AGENTS).filter(|number| *number != own) {
            let folder = project.join(other.to_string());
            if !folder.is_dir() {
                continue;
            }
            let Some(_lock) = lock(&folder)? else {
                continue;
            };
            for number in numbers(&folder)? {
                fs::rename(folder.join(file_name(number)), self.path(next))?;
                next += 1;
            }
        }
        self.handle.sync_all()
    }

    fn scan(&self) -> io::Result<(Vec<Head>, Vec<String>)> {
        let (mut heads, mut notes) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) || name == LOCK {
                continue;
            }
            if name.ends_with(WRITING) {
                // It was never finished.
                fs::remove_file(entry.path())?;
                continue;
            }
            let number = number_of(&name);
            let read = number.map(|number| {
                let bytes = self.read(number)?;
                Ok::<_, EntryError>((bytes.len() as u64, Entry::from_bytes(&bytes)?))
            });
            match (number, read) {
                (Some(number), Some(Ok((bytes, entry)))) => heads.push(Head {
                    number,
                    kind: entry.kind,
                    count: entry.count,
                    bytes: room(bytes),
                }),
                (_, read) => {
                    let why = match read {
                        Some(Err(error)) => error.to_string(),
                        _ => EntryError::Torn.to_string(),
                    };
                    self.move_to("set-aside", &name);
                    notes.push(format!(
                        "{}: set aside: {why}",
                        text::shown(&entry.path().to_string_lossy())
                    ));
                }
            }
        }
        heads.sort_unstable_by_key(|head| head.number);
        Ok((heads, notes))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(file_name(number))
    }

    /// Writes an entry's bytes to the disk, not yet under its name: several threads may do so at a time.
    ///
    /// # Errors
    /// Where they can't be written.
    pub fn prepare(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.writing(number);
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if written.is_err() {
            // A full disk: what was written takes the room that others need.
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// Gives a prepared entry its name: from now on it is there, whole. It outlives a power loss after
    /// [`sync`](Self::sync).
    ///
    /// # Errors
    /// Where it was not prepared, or can't be renamed.
    pub fn publish(&self, number: u64) -> io::Result<()> {
        fs::rename(self.writing(number), self.path(number))
    }

    fn writing(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:020}{WRITING}"))
    }

    /// Makes the names of written entries last.
    ///
    /// # Errors
    /// Where the system can't.
    pub fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads an entry's bytes.
    ///
    /// # Errors
    /// Where it is not there, or too large to be one.
    pub fn read(&self, number: u64) -> Result<Vec<u8>, EntryError> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path(number));
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(EntryError::Gone),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_ENTRY).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Removes an entry.
    pub fn remove(&self, number: u64) {
        // Not synced: an entry that comes back after a power loss is sent twice, which is allowed.
        let _ = fs::remove_file(self.path(number));
    }

    /// Puts an entry where it is kept for a look, with the reason.
    pub fn bury(&self, number: u64, reason: &str) {
        let name = file_name(number);
        let Some(dead) = self.move_to("dead", &name) else {
            return;
        };
        let note = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(dead.join(format!("{number:020}.reason")));
        if let Ok(mut note) = note {
            let _ = writeln!(note, "{reason}");
        }
    }

    /// Puts a file aside that can't be read.
    pub fn set_aside(&self, number: u64) {
        self.move_to("set-aside", &file_name(number));
    }

    /// Moves a file into a folder beside the entries, which is kept small.
    fn move_to(&self, folder: &str, name: &str) -> Option<PathBuf> {
        let folder = self.folder.join(folder);
        make_folder(&folder).ok()?;
        let _ = fs::rename(self.folder.join(name), folder.join(name));
        let mut names: Vec<PathBuf> = fs::read_dir(&folder)
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_none_or(|ending| ending != "reason"))
            .collect();
        names.sort_unstable();
        let surplus = names.len().saturating_sub(MAX_BURIED);
        for path in names.into_iter().take(surplus) {
            let _ = fs::remove_file(path.with_extension("reason"));
            let _ = fs::remove_file(path);
        }
        Some(folder)
    }
}
