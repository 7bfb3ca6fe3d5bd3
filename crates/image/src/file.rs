//! A file with code: what is known of it whoever maps it, and whose debug files are believed of it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    DebugPlaces, DebugPolicy,
    foreign::{self, Root},
    symbol::Elf,
};

/// Identity of a file's contents: the same inode number can be another file later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileKey {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Last change of the inode, seconds and nanoseconds.
    pub changed: (i64, i64),
    /// Bytes.
    pub size: u64,
}

impl FileKey {
    /// Of an open file.
    ///
    /// # Errors
    /// Where the system can't tell.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    fn from_metadata(metadata: &fs::Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
        }
    }
}

/// A file as the user names it: a path, or the last part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileName {
    text: String,
    /// What is there, where it is a path that was looked up.
    found: Option<Found>,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    /// Without links.
    path: String,
    key: FileKey,
}

impl FileName {
    /// The name alone.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            found: None,
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn is_path(&self) -> bool {
        self.text.contains('/')
    }

    /// Looks what is there, where it is a path: whoever compares it with files later may see no folder.
    pub fn look_up(&mut self) {
        let metadata = self.is_path().then(|| fs::metadata(&self.text));
        self.found = metadata.and_then(Result::ok).map(|metadata| Found {
            path: fs::canonicalize(&self.text).map_or_else(
                |_| self.text.clone(),
                |path| path.to_string_lossy().into_owned(),
            ),
            key: FileKey::from_metadata(&metadata),
        });
    }
}

/// A file with code, opened once; everything that follows uses this descriptor.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its path as whoever maps it sees it; for people.
    pub path: String,
    /// It is a program, not a library of one.
    pub is_main: bool,
    /// The file.
    pub file: Arc<File>,
    /// Its identity when it was opened.
    pub key: FileKey,
    /// Where debug files are believed of it.
    pub debug: DebugPlaces,
}

impl Image {
    /// Of an open file.
    ///
    /// # Errors
    /// Where the system can't tell what file it is.
    pub fn new(file: File, path: String, is_main: bool, debug: DebugPlaces) -> io::Result<Self> {
        Ok(Self {
            path,
            is_main,
            key: FileKey::of(&file)?,
            file: Arc::new(file),
            debug,
        })
    }

    /// A file that no process need have mapped. The path is the user's.
    ///
    /// # Errors
    /// Where there is none that can be opened.
    pub fn open(path: &Path, is_main: bool) -> io::Result<Self> {
        Self::at(foreign::open(path)?, path, is_main)
    }

    fn at(file: File, path: &Path, is_main: bool) -> io::Result<Self> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let path = path.to_string_lossy().into_owned();
        Self::new(file, path, is_main, DebugPlaces::host(true))
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        let path = self.path.trim_end_matches(" (deleted)");
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Whether the user's `@MODULE` means this file.
    pub fn is_called(&self, wanted: &FileName) -> bool {
        if !wanted.is_path() {
            return self.name() == wanted.text;
        }
        let path = self.path.trim_end_matches(" (deleted)");
        let found = wanted.found.as_ref();
        path == wanted.text
            || found.is_some_and(|found| found.path == path || found.key == self.key)
    }

    /// A path by which the kernel finds exactly the open file.
    pub fn kernel_path(&self) -> String {
        use std::os::fd::AsRawFd as _;
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// What is known of an image beside the open file: sent along with that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// [`Image::path`].
    pub path: String,
    /// [`Image::is_main`].
    pub is_main: bool,
    /// [`Image::key`].
    pub key: FileKey,
    /// Whose debug files are believed of it.
    pub debug: DebugPolicy,
}

impl From<&Image> for ImageFacts {
    fn from(image: &Image) -> Self {
        Self {
            path: image.path.clone(),
            is_main: image.is_main,
            key: image.key,
            debug: image.debug.policy(),
        }
    }
}

impl ImageFacts {
    /// The image of these facts, where its file is at hand; `debug` is where debug files are believed of it.
    pub fn image(&self, file: Arc<File>, debug: DebugPlaces) -> Image {
        Image {
            path: self.path.clone(),
            is_main: self.is_main,
            file,
            key: self.key,
            debug,
        }
    }
}

/// Libraries looked for per program.
const MAX_NEEDED: usize = 256;

/// The libraries that the dynamic linker would load for a program, as far as its standard places
/// tell: for programs that do not run yet.
pub fn needed_images(main: &Image) -> Vec<Image> {
    let mut images: Vec<Image> = Vec::new();
    let Ok(root) = Root::host() else {
        return images;
    };
    let mut queue = vec![main.clone()];
    let mut seen: Vec<String> = Vec::new();
    while let Some(image) = queue.pop() {
        let Ok(elf) = Elf::read(&image.file) else {
            continue;
        };
        let origin = Path::new(&image.path)
            .parent()
            .unwrap_or(Path::new("/"))
            .to_string_lossy()
            .into_owned();
        let own: Vec<PathBuf> = elf
            .run_paths
            .iter()
            .flat_map(|paths| paths.split(':'))
            .map(|path| {
                PathBuf::from(
                    path.replace("$ORIGIN", &origin)
                        .replace("${ORIGIN}", &origin),
                )
            })
            .collect();
        for name in &elf.needed {
            if seen.len() >= MAX_NEEDED || seen.contains(name) || name.contains('/') {
                continue;
            }
            seen.push(name.clone());
            let found = own
                .iter()
                .map(PathBuf::as_path)
                .chain(LIBRARY_FOLDERS.iter().map(Path::new))
                // A folder that depends on where the program is started is none that is known.
                .filter(|folder| folder.is_absolute())
                .find_map(|folder| {
                    let path = folder.join(name);
                    Image::at(root.open(&path).ok()?, &path, false).ok()
                });
            if let Some(library) = found {
                queue.push(library.clone());
                images.push(library);
            }
        }
    }
    images
}

/// Where the dynamic linker looks, if nothing says otherwise.
pub const LIBRARY_FOLDERS: [&str; 7] = [
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
