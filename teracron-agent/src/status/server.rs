//! The running agent's side: each connection gets one JSON object.

use std::{
    fs, io,
    io::Write as _,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::Board;

/// Nobody who asks can hold the answering thread for longer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The socket; removed when this is dropped.
pub struct Server {
    path: PathBuf,
}

impl Server {
    /// Answers from now on.
    ///
    /// # Errors
    /// Where the folder or the socket can't be made.
    pub fn start(folder: &Path, board: Board) -> io::Result<Self> {
        make_private(folder)?;
        let path = folder.join(format!("agent-{}.sock", std::process::id()));
        // An earlier process with our id.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        let started = Instant::now();
        thread::Builder::new()
            .name("teracron-status".to_owned())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    // Whoever asked has gone, or is too slow: its loss.
                    let _ = answer(stream, &board, started.elapsed());
                }
            })?;
        Ok(Self { path })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes a folder for its owner alone, and refuses another user's.
fn make_private(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let own = rustix::process::geteuid().as_raw();
    if fs::metadata(folder)?.uid() != own {
        return Err(io::Error::other("the folder is another user's"));
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

fn answer(mut stream: UnixStream, board: &Board, uptime: Duration) -> io::Result<()> {
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(&board.status(uptime))?;
    line.push(b'\n');
    stream.write_all(&line)
}
