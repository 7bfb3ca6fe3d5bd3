//! In the process that delivers: it is shut in before it does anything else, and then scrubs, seals, keeps and sends.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    books::{State, Writer},
    messages::{Answer, Beside, Order, RuleSet, Setup, kept},
    process::SHUT_IN_FAILED,
    user::user,
};
use crate::{logging, shut_in::Channel};
use model::{
    error::{Error, Result},
    notes::{self, Notes},
    text::{self, counted},
    totals::Totals,
};
use pipeline::{
    own_files::{Folder, Refused},
    pack::{Intake, Outlet, Packer},
    ship::{Courier, Pace, Route, SharedHealth, Shipper},
    spool::{Disk, SharedSpool, Spool, keep_for},
};
use sys::walls::{SystemCalls, Walls, shut_in};
use wire::seal::{PublicKey, Sealer};

/// Spans and samples that wait here to be sealed: what comes then waits in the agent.
const MAX_WAITING: usize = 4096;
/// How often it is looked how things are where nothing is counted.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What neither it nor the user's scrubber, which has the same walls, needs to ask of the kernel.
const FORBIDDEN: [i64; 45] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Does what comes on standard input, which is a socket of the agent's.
pub(crate) fn work(agent: u32) -> ExitCode {
    let failed = ExitCode::from(SHUT_IN_FAILED as u8);
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else {
        return failed;
    };
    let user = user();
    let walls = Walls {
        user: user.user,
        group: user.group,
        // The user's scrubber has the same limits, and some programs ask for much address space that they never use.
        address_space: None,
        processor_seconds: None,
        system_calls: SystemCalls::AllBut(&FORBIDDEN),
    };
    if shut_in(&walls, agent).is_err() {
        return failed;
    }
    keep_for(agent);
    let Ok(sending) = socket.try_clone() else {
        return failed;
    };
    let agent = Agent(Arc::new(Mutex::new(Channel::new(sending))));
    match deliver(Channel::new(socket), &agent) {
        Ok(()) => ExitCode::SUCCESS,
        // It is gone, or talks nonsense. The scrubber goes with us, at once.
        Err(_) => sys::exit_now(1),
    }
}

/// The agent, which says things and makes folders.
#[derive(Clone)]
struct Agent(Arc<Mutex<Channel>>);

impl Agent {
    fn tell(&self, answer: &Answer) -> io::Result<()> {
        let mut channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        channel.send(answer, &[])
    }
}

fn deliver(mut orders: Channel, agent: &Agent) -> io::Result<()> {
    let nonsense = || io::Error::from(io::ErrorKind::InvalidData);
    let (Order::Begin(path), files) = orders.receive()? else {
        return Err(nonsense());
    };
    let mut files = files.into_iter();
    let (Some(setup), Some(books), Some(beside)) = (files.next(), files.next(), files.next())
    else {
        return Err(nonsense());
    };
    let setup: Setup = kept(&setup)?;
    let saying = agent.clone();
    notes::send_to(move |note| {
        // Where nobody hears it, the next read ends the process.
        let _ = saying.tell(&Answer::Note(note.to_owned()));
    });
    logging::start(setup.debug);
    let (tell_folder, folders) = mpsc::channel();
    let place = match (files.next(), path) {
        (Some(folder), Some(path)) => Some(Place {
            path: path.clone(),
            first: Mutex::new(Some((folder.into(), path))),
            folders: Mutex::new(folders),
            agent: agent.clone(),
        }),
        (None, None) => None,
        _ => return Err(nonsense()),
    };
    let deadline = Arc::new(OnceLock::new());
    let hearing = Hearing {
        channel: Channel::new(beside.into()),
        folders: tell_folder,
        deadline: deadline.clone(),
    };
    thread::Builder::new()
        .name("teracron-beside".to_owned())
        .spawn(move || hearing.hear())?;
    let writer = Arc::new(Writer::new(books));
    let works = match Works::start(setup, place, &writer, deadline) {
        Ok(works) => works,
        Err(error) => {
            agent.tell(&Answer::Refused(error))?;
            return Ok(());
        }
    };
    works.write_state(&writer);
    agent.tell(&Answer::Ready)?;
    let looking = works.look(writer.clone());
    let patience = works.take_all(&mut orders)?;
    works.finish(Instant::now() + patience, &writer, &looking);
    agent.tell(&Answer::Finished)
}

/// A folder's handle and path, or why there is none.
type Found = io::Result<(OwnedFd, PathBuf)>;

/// Hears what the agent says beside its orders.
struct Hearing {
    channel: Channel,
    folders: Sender<Found>,
    /// What is not sealed then is dropped.
    deadline: Arc<OnceLock<Instant>>,
}

impl Hearing {
    fn hear(mut self) {
        while let Ok((said, files)) = self.channel.receive::<Beside>() {
            match said {
                Beside::Stop(left) => {
                    let _ = self.deadline.set(Instant::now() + left);
                }
                Beside::Folder(answer) => {
                    let file = files.into_iter().next();
                    let found = match (answer, file) {
                        (Ok(path), Some(file)) => Ok((file.into(), path)),
                        (Ok(_), None) => Err(io::ErrorKind::InvalidData.into()),
                        (Err(why), _) => Err(io::Error::other(why)),
                    };
                    // Whoever asked may have given up.
                    let _ = self.folders.send(found);
                }
            }
        }
    }
}

/// Where the spool is.
struct Place {
    path: PathBuf,
    /// As it came with the first order.
    first: Mutex<Option<(OwnedFd, PathBuf)>>,
    /// Answers of the agent's.
    folders: Mutex<Receiver<Found>>,
    agent: Agent,
}

impl Place {
    /// The project's folder.
    fn folder(&self) -> std::result::Result<Folder, Refused> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match first.take() {
            Some(first) => Ok(first),
            None => self.ask(),
        };
        let (handle, path) = found.map_err(|error| Refused::System {
            path: self.path.clone(),
            error,
        })?;
        Folder::of_handle(handle, path)
    }

    fn ask(&self) -> Found {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        self.agent.tell(&Answer::Folder)?;
        let answered = folders.recv();
        answered.unwrap_or_else(|_| Err(io::ErrorKind::NotConnected.into()))
    }
}

/// Everything that works here.
struct Works {
    packer: Packer,
    shipper: Shipper,
    intake: Intake,
    totals: Arc<Totals>,
    spool: SharedSpool,
    health: SharedHealth,
    notes: Notes,
}

impl Works {
    fn start(
        setup: Setup,
        place: Option<Place>,
        writer: &Arc<Writer>,
        deadline: Arc<OnceLock<Instant>>,
    ) -> Result<Self> {
        let notes = Notes { quiet: setup.quiet };
        let certificates = setup.certificates.as_deref();
        let courier = Courier::new(&setup.slug, &setup.endpoint, certificates)?;
        let rules = setup.rules.prepare().map_err(Error::Usage)?;
        let public_key = PublicKey::from_der(&setup.public_key)
            .ok_or_else(|| Error::Usage("the project's public key is none".to_owned()))?;
        let totals = Arc::new(Totals::default());
        let copying = writer.clone();
        totals.copy_to(move |books| copying.totals(books));
        let spool = open_spool(place, setup.spool_max, &totals, notes)?;
        let wake = Arc::new(Notify::new());
        let shipper = Shipper::start(Route {
            courier,
            spool: spool.clone(),
            wake: wake.clone(),
            totals: totals.clone(),
            pace: Pace::default(),
            notes,
        })?;
        let outlet = Outlet {
            sealer: Sealer::new(public_key),
            spool: spool.clone(),
            wake,
            notes,
        };
        let packer = Packer::start_until(rules, outlet, totals.clone(), deadline)?;
        Ok(Self {
            intake: packer.intake(),
            health: shipper.health(),
            packer,
            shipper,
            totals,
            spool,
            notes,
        })
    }

    /// Takes what comes until it is told to finish; answers how long that may take.
    fn take_all(&self, orders: &mut Channel) -> io::Result<Duration> {
        let nonsense = || io::Error::from(io::ErrorKind::InvalidData);
        loop {
            match orders.receive()? {
                (Order::Spans(packed), _) => {
                    self.wait_for_room();
                    self.intake.spans(packed.unpack().ok_or_else(nonsense)?);
                }
                (Order::Samples(samples), _) => {
                    self.wait_for_room();
                    self.intake.samples(samples);
                }
                (Order::Rules, files) => {
                    let file = files.first().ok_or_else(nonsense)?;
                    self.change(&kept::<RuleSet>(file)?);
                }
                (Order::Finish(patience), _) => return Ok(patience),
                (Order::Begin(_), _) => return Err(nonsense()),
            }
        }
    }

    /// What comes faster than it is sealed waits in the agent, which knows what to do where that is too much.
    fn wait_for_room(&self) {
        while self.intake.waiting() > MAX_WAITING {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn change(&self, rules: &RuleSet) {
        match rules.prepare() {
            Ok(rules) => self.intake.rules(rules),
            Err(why) => self.notes.say(&format!(
                "the new rules for scrubbing are not in force, those before are: {}",
                text::shown(&why)
            )),
        }
    }

    fn write_state(&self, writer: &Writer) {
        write_state(&self.spool, &self.health, writer);
    }

    /// Looks how things are, beside the work; ends by the flag.
    fn look(&self, writer: Arc<Writer>) -> Arc<AtomicBool> {
        let over = Arc::new(AtomicBool::new(false));
        let (totals, spool) = (self.totals.clone(), self.spool.clone());
        let (health, is_over) = (self.health.clone(), over.clone());
        let look = move || {
            let mut known = totals.snapshot();
            while !is_over.load(Ordering::Relaxed) {
                known = totals.wait(&known, LOOK_EVERY);
                write_state(&spool, &health, &writer);
            }
        };
        // Without, status tells a little less.
        let _ = thread::Builder::new()
            .name("teracron-look".to_owned())
            .spawn(look);
        over
    }

    fn finish(self, deadline: Instant, writer: &Writer, looking: &AtomicBool) {
        drop(self.intake);
        self.packer.finish(deadline);
        self.shipper.finish(deadline);
        looking.store(true, Ordering::Relaxed);
        write_state(&self.spool, &self.health, writer);
    }
}

fn write_state(spool: &SharedSpool, health: &SharedHealth, writer: &Writer) {
    let (batches, bytes) = spool.size();
    writer.state(State {
        health: health.now(),
        batches: batches as u64,
        bytes,
    });
}

fn open_spool(
    place: Option<Place>,
    spool_max: u64,
    totals: &Totals,
    notes: Notes,
) -> Result<SharedSpool> {
    let Some(place) = place else {
        return Ok(SharedSpool::new(Spool::in_memory(spool_max)));
    };
    let opened = Disk::open_in(Box::new(move || place.folder()));
    let (disk, left_over, problems) = opened.map_err(|error| super::no_spool(&error))?;
    for problem in problems {
        notes.say(&problem);
    }
    if !left_over.is_empty() {
        notes.say(&format!(
            "{} of an earlier run in {}: sent first",
            counted(left_over.len() as u64, "sealed batch"),
            shown_spool(&disk.folder())
        ));
    }
    for head in &left_over {
        totals.left_over(head.kind, head.count.into());
    }
    Ok(SharedSpool::new(Spool::on_disk(disk, left_over, spool_max)))
}

/// The user's folder: two above the one that is in use.
fn shown_spool(folder: &Path) -> String {
    let spool = folder.ancestors().nth(2).unwrap_or(folder);
    text::shown(&spool.to_string_lossy())
}
