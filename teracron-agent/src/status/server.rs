//! The running agent's side: each connection gets one JSON object.

use std::{
    io::{self, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FileType, Mode, fchmod},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};

use super::Board;
use pipeline::own_files::{Folder, Refused};

/// Nobody who asks can hold the answering thread for longer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Those who ask and wait for their turn.
const BACKLOG: i32 = 128;

/// The socket; removed when this is dropped.
pub struct Server {
    folder: Folder,
    name: String,
}

impl Server {
    /// Answers from now on. A folder that is missing is made for its owner alone; one that is there stays as it
    /// is.
    ///
    /// # Errors
    /// Where the folder or the socket can't be made, or others can write to the folder.
    pub fn start(folder: &Path, board: Board) -> Result<Self, Refused> {
        let folder = Folder::make(folder)?;
        let name = super::socket_name(std::process::id());
        let listener = listen_in(&folder, &name).map_err(|error| Refused::System {
            path: folder.path().join(&name),
            error,
        })?;
        let started = Instant::now();
        thread::Builder::new()
            .name("teracron-status".to_owned())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    // Whoever asked has gone, or is too slow: its loss.
                    let _ = answer(stream, &board, started.elapsed());
                }
            })
            .map_err(|error| Refused::System {
                path: folder.path().to_owned(),
                error,
            })?;
        Ok(Self { folder, name })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.folder.remove(&self.name);
    }
}

/// A socket that its owner alone can open, from the first moment on.
fn listen_in(folder: &Folder, name: &str) -> io::Result<UnixListener> {
    if folder.has_own(name, FileType::Socket) {
        // An earlier process with our id.
        folder.remove(name)?;
    }
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // The name gets the mode that the socket has before it is bound.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(folder.link().join(name))?)?;
    listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn answer(mut stream: UnixStream, board: &Board, uptime: Duration) -> io::Result<()> {
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = serde_json::to_vec(&board.status(uptime))?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn only_what_the_agent_makes_becomes_private() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("shared");
        fs::create_dir(&shared).unwrap();
        for (before, fine) in [(0o1777, false), (0o777, false), (0o755, true)] {
            fs::set_permissions(&shared, Permissions::from_mode(before)).unwrap();
            let server = Server::start(&shared, Board::default());
            assert_eq!(server.is_ok(), fine, "{before:o}");
            assert_eq!(mode(&shared), before);
        }
        let made = folder.path().join("made");
        let server = Server::start(&made, Board::default()).unwrap();
        assert_eq!(mode(&made), 0o700);
        assert_eq!(mode(&made.join(&server.name)), 0o600);
        // What has the socket's name and is none stays.
        drop(server);
        let name = super::super::socket_name(std::process::id());
        assert!(!made.join(&name).exists());
        fs::write(made.join(&name), "x").unwrap();
        assert!(Server::start(&made, Board::default()).is_err());
        assert_eq!(fs::read(made.join(&name)).unwrap(), b"x");
        symlink("made", folder.path().join("link")).unwrap();
        fs::remove_file(made.join(&name)).unwrap();
        Server::start(&folder.path().join("link"), Board::default()).unwrap();
    }
}
