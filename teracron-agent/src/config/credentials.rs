//! `~/.teracron/credentials.json`, as `teracron login` of every client writes it.

use std::{
    fmt,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use zeroize::Zeroizing;

use super::Environment;
use model::{
    error::{Context as _, Error, Result},
    text::shown,
};
use pipeline::own_files::{self, Folder, Refused};

/// A file larger than this is none of ours.
const MAX_BYTES: u64 = 64 << 10;

/// Contents of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Credentials {
    /// The token.
    pub api_key: String,
    /// Name of the project.
    pub project_slug: String,
    /// Host.
    pub domain: String,
    /// Unix seconds.
    #[serde(deserialize_with = "seconds")]
    pub created_at: u64,
    /// Unix seconds.
    #[serde(default)]
    pub expires_at: Option<f64>,
}

impl Credentials {
    /// Made now.
    pub fn new(api_key: &str, project_slug: &str, domain: &str) -> Self {
        Self {
            api_key: api_key.to_owned(),
            project_slug: project_slug.to_owned(),
            domain: domain.to_owned(),
            created_at: unix_seconds() as u64,
            expires_at: None,
        }
    }
}

/// Whole seconds, as the reference client writes them, or with a fraction.
fn seconds<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<u64, D::Error> {
    f64::deserialize(deserializer).map(|seconds| seconds as u64)
}

fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Where the file is.
pub fn path(environment: &Environment) -> Option<PathBuf> {
    let home = environment.get("HOME")?;
    Some(PathBuf::from(home).join(".teracron/credentials.json"))
}

/// Why what is stored can't be used.
#[derive(Debug)]
pub enum Unusable {
    /// It can't be read, or others could have written it.
    Refused(Refused),
    /// It makes no sense.
    NotUnderstood {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
    },
}

impl Unusable {
    /// Whether the file is somebody else's alone: of another user whose HOME this is.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused(Refused::System { error, .. })
            if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => write!(f, "the stored API key: {refused}"),
            Self::NotUnderstood { path, line } => write!(
                f,
                "{}; `teracron-agent login` writes it anew: line {line}: not understood",
                shown(&path.to_string_lossy())
            ),
        }
    }
}

impl std::error::Error for Unusable {}

impl From<Unusable> for Error {
    fn from(unusable: Unusable) -> Self {
        Self::Usage(unusable.to_string())
    }
}

/// Reads the file; `None` where there is none, or one that has expired.
///
/// # Errors
/// Where it is there and can't be read, others could have written it, or it makes no sense.
pub fn load(path: &Path) -> std::result::Result<Option<Credentials>, Unusable> {
    let text = match own_files::read(path, MAX_BYTES) {
        Ok(content) => Zeroizing::new(content.bytes),
        Err(refused) if refused.is_missing() => return Ok(None),
        Err(refused) => return Err(Unusable::Refused(refused)),
    };
    // The parser's words may quote the contents.
    let credentials: Credentials = serde_json::from_slice(&text).map_err(|error| {
        let (path, line) = (path.to_owned(), error.line());
        Unusable::NotUnderstood { path, line }
    })?;
    let expired = credentials
        .expires_at
        .is_some_and(|expires| expires < unix_seconds());
    Ok((!expired).then_some(credentials))
}

/// The folder's path and the file's name.
fn parts(path: &Path) -> Result<(&Path, &str)> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(|name| (path.parent().unwrap_or(Path::new(".")), name))
        .ok_or_else(|| Error::Failed("no path for the stored API key".to_owned()))
}

/// Writes the file: whole or not at all, and for nobody else to read.
///
/// # Errors
/// Where it can't be written, or others could exchange it.
pub fn save(path: &Path, credentials: &Credentials) -> Result<()> {
    let what = || shown(&path.to_string_lossy());
    let (folder, name) = parts(path)?;
    let refused = |refused: Refused| Error::Failed(refused.to_string());
    let folder = Folder::make(folder).map_err(refused)?;
    let text = Zeroizing::new(serde_json::to_string_pretty(credentials).failed(what)?);
    let new = format!(".credentials-{}", std::process::id());
    // Of an earlier process with our id.
    let _ = folder.remove(&new);
    let mut file = folder.create_new(&new).map_err(refused)?;
    file.write_all(text.as_bytes()).failed(what)?;
    file.sync_all().failed(what)?;
    folder.rename(&new, &folder, name).failed(what)
}

/// Overwrites the file with zeros, then removes it; `false` where there was none.
///
/// # Errors
/// Where it can't be removed.
pub fn wipe(path: &Path) -> Result<bool> {
    let what = || shown(&path.to_string_lossy());
    let (folder, name) = parts(path)?;
    let opened = Folder::open(folder).and_then(|folder| Ok((folder.change(name)?, folder)));
    let (mut file, folder) = match opened {
        Err(refused) if refused.is_missing() => return Ok(false),
        opened => opened.map_err(|refused| Error::Failed(refused.to_string()))?,
    };
    let size = file.metadata().failed(what)?.len().min(MAX_BYTES);
    file.write_all(&vec![0; size as usize]).failed(what)?;
    file.sync_all().failed(what)?;
    folder.remove(name).failed(what)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn saved_for_the_owner_alone_and_wiped() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".teracron/credentials.json");
        assert!(load(&path).unwrap().is_none());
        assert!(!wipe(&path).unwrap());
        save(&path, &Credentials::new("tcn_x", "a-b-001", "h")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(load(&path).unwrap().unwrap().project_slug, "a-b-001");
        let mut old = Credentials::new("tcn_x", "a-b-001", "h");
        old.expires_at = Some(1.0);
        save(&path, &old).unwrap();
        assert!(load(&path).unwrap().is_none());
        // A second name shows that the bytes are overwritten, not only unlinked.
        let second = home.path().join("second");
        fs::hard_link(&path, &second).unwrap();
        assert!(wipe(&path).unwrap());
        assert!(fs::read(&second).unwrap().iter().all(|byte| *byte == 0));
        fs::write(&path, "{").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("line 1"));
    }
}
