//! In the process that delivers: it is shut in before it does anything, then takes what the agent sends, scrubs, seals,
//! keeps and ships it, and tells what became of it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use sys::walls::{Walls, shut_in};
use tokio::sync::Notify;

use super::{
    Report,
    messages::{Answer, Handling, Order, Start},
};
use crate::{
    logging::start_log,
    shut_in::{Channel, Part},
};
use model::{
    error::{Error, Result},
    notes::{self, Notes},
    text::{counted, shown},
    totals::Totals,
};
use pipeline::{
    own_files::{Folder, Refused},
    pack::{Intake, Outlet, Packer, Rules},
    scrub::Scrubber,
    ship::{Courier, Pace, Route, SharedHealth, Shipper},
    spool::{Disk, Project, SharedSpool, Spool},
};
use wire::seal::{PublicKey, Sealer};

/// Orders that wait in memory here; the rest waits with the agent, which counts it.
const WAITING: usize = 4;
/// Between two words of what became of everything.
const TELL_EVERY: Duration = Duration::from_millis(20);
/// It looks again this often, though nothing was booked: the service's health may have changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Until there is room for more spans.
const PAUSE: Duration = Duration::from_millis(1);

/// Does the work until the agent says that it is over, or is gone.
pub(super) fn work(parent: u32) -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    shut_in(
        &Walls {
            user: Part::Delivering.user(),
            address_space: None,
            processor_seconds: None,
            // A scrubber is any program.
            system_calls: None,
        },
        parent,
    )?;
    let mut channel = Channel::new(socket);
    let (Order::Start(start), _) = channel.receive()? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if !start.quiet {
        notes::start();
    }
    if start.debug {
        start_log(true);
    }
    let agent = Arc::new(Mutex::new(channel.again()?));
    let (folders, folder) = sync_channel(1);
    let (orders, todo) = sync_channel(WAITING);
    thread::Builder::new()
        .name("teracron-orders".to_owned())
        .spawn(move || listen(channel, &orders, &folders))?;
    let result = deliver(*start, &agent, todo, folder);
    notes::finish();
    result
}

/// Reads what the agent says, as it comes.
fn listen(
    mut channel: Channel,
    orders: &SyncSender<Order>,
    folders: &SyncSender<io::Result<(OwnedFd, PathBuf)>>,
) {
    loop {
        let Ok((order, files)) = channel.receive::<Order>() else {
            // The agent is gone, and nobody is left to work for: what is on disk is sent by the next one.
            sys::exit_now(1);
        };
        let taken = match order {
            Order::Folder(folder) => {
                let folder = folder.map_err(io::Error::other).and_then(|path| {
                    let handle = files.into_iter().next();
                    let handle = handle.ok_or(io::ErrorKind::InvalidData)?;
                    Ok((OwnedFd::from(handle), PathBuf::from(path)))
                });
                folders.send(folder).is_ok()
            }
            order => orders.send(order).is_ok(),
        };
        if !taken {
            return; // it is over
        }
    }
}

type Agent = Arc<Mutex<Channel>>;

fn tell(agent: &Agent, answer: &Answer) -> io::Result<()> {
    let mut channel = agent.lock().unwrap_or_else(PoisonError::into_inner);
    channel.send(answer, &[])
}

/// The spool's folder, as the agent gives it.
fn project(agent: Agent, folder: Receiver<io::Result<(OwnedFd, PathBuf)>>) -> Project {
    let folder = Mutex::new(folder);
    Box::new(move || {
        let system = |error| Refused::System {
            path: PathBuf::from("the spool"),
            error,
        };
        let folder = folder.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&agent, &Answer::Folder).map_err(system)?;
        let given = folder.recv().map_err(io::Error::other).map_err(system)?;
        let (handle, path) = given.map_err(system)?;
        Folder::of_handle(handle, path)
    })
}

/// Everything behind the socket.
struct Delivering {
    packer: Packer,
    shipper: Shipper,
    books: BooksHere,
}

/// What is told of it.
#[derive(Clone)]
struct BooksHere {
    totals: Arc<Totals>,
    spool: SharedSpool,
    health: SharedHealth,
}

impl BooksHere {
    fn report(&self) -> Report {
        let (batches, bytes) = self.spool.size();
        let folder = self.spool.folder();
        Report {
            totals: self.totals.snapshot(),
            health: self.health.now(),
            batches: batches as u64,
            bytes,
            folder: folder.map(|folder| folder.to_string_lossy().into_owned()),
        }
    }
}

fn deliver(
    start: Start,
    agent: &Agent,
    todo: Receiver<Order>,
    folder: Receiver<io::Result<(OwnedFd, PathBuf)>>,
) -> io::Result<()> {
    let notes = Notes { quiet: start.quiet };
    let project = project(agent.clone(), folder);
    let delivering = match Delivering::start(start, project, notes) {
        Ok(delivering) => delivering,
        Err(error) => return tell(agent, &Answer::Started(Err(error))),
    };
    let Delivering {
        packer,
        shipper,
        books,
    } = delivering;
    // Before anything new: what was found in the spool.
    tell(agent, &Answer::Report(Box::new(books.report())))?;
    tell(agent, &Answer::Started(Ok(())))?;
    let (stop, stopped) = channel::<()>();
    let reporter = {
        let (books, agent) = (books.clone(), agent.clone());
        thread::Builder::new()
            .name("teracron-report".to_owned())
            .spawn(move || report(&books, &agent, &stopped))?
    };
    let deadline = Instant::now() + take_orders(&packer.intake(), todo, notes);
    packer.finish(deadline);
    shipper.finish(deadline);
    drop(stop);
    let _ = reporter.join();
    tell(agent, &Answer::Finished(Box::new(books.report())))
}

/// Tells what became of everything, when that has changed.
fn report(books: &BooksHere, agent: &Agent, stopped: &Receiver<()>) {
    let mut last = Report::default();
    loop {
        books.totals.wait(&last.totals, LOOK_EVERY);
        let now = books.report();
        if now != last {
            if tell(agent, &Answer::Report(Box::new(now.clone()))).is_err() {
                return;
            }
            last = now;
        }
        if stopped.recv_timeout(TELL_EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
        {
            return;
        }
    }
}

/// Takes what comes until the end; answers how long that may take.
fn take_orders(intake: &Intake, todo: Receiver<Order>, notes: Notes) -> Duration {
    for order in todo {
        match order {
            Order::Spans(spans) => {
                // What waits any longer waits with the agent.
                while !intake.has_room(spans.len()) {
                    thread::sleep(PAUSE);
                }
                intake.spans(spans);
            }
            Order::Samples(samples) => intake.samples(samples),
            Order::Change(handling) => match rules(*handling) {
                Ok(rules) => intake.rules(rules),
                Err(error) => {
                    notes.say(&format!("spans are scrubbed and packed as before: {error}"))
                }
            },
            Order::Finish(patience) => return patience,
            Order::Start(_) | Order::Folder(_) => {}
        }
    }
    Duration::ZERO
}

fn rules(handling: Handling) -> Result<Rules> {
    Ok(Rules {
        scrubber: Scrubber::new(&handling.scrub).map_err(Error::Usage)?,
        batching: handling.batching,
    })
}

impl Delivering {
    /// Opens the spool and starts the threads. What an earlier run left goes out first.
    fn start(start: Start, project: Project, notes: Notes) -> Result<Self> {
        let courier = Courier::new(&start.slug, &start.endpoint, start.certificates.as_deref())?;
        let key = PublicKey::from_der(&start.key)
            .ok_or_else(|| Error::Usage("the project's public key is not RSA-4096".to_owned()))?;
        let rules = rules(start.handling)?;
        let totals = Arc::new(Totals::default());
        let spool = match &start.spool {
            Some(shown) => open_spool(project, shown, start.spool_max, &totals, notes)?,
            None => SharedSpool::new(Spool::in_memory(start.spool_max)),
        };
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
            sealer: Sealer::new(key),
            spool: spool.clone(),
            wake,
            notes,
        };
        let packer = Packer::start(rules, outlet, totals.clone())?;
        Ok(Self {
            books: BooksHere {
                totals,
                spool,
                health: shipper.health(),
            },
            packer,
            shipper,
        })
    }
}

fn open_spool(
    project: Project,
    path: &str,
    most: u64,
    totals: &Totals,
    notes: Notes,
) -> Result<SharedSpool> {
    let path = shown(path);
    let (disk, left_over, problems) = Disk::open_in(project).map_err(|error| {
        Error::Failed(format!(
            "cannot use the spool {path}: {error}; --spool-dir names another, --no-spool does without"
        ))
    })?;
    for problem in problems {
        notes.say(&problem);
    }
    if !left_over.is_empty() {
        notes.say(&format!(
            "{} of an earlier run in {path}: sent first",
            counted(left_over.len() as u64, "sealed batch")
        ));
    }
    for head in &left_over {
        totals.left_over(head.kind, head.count.into());
    }
    Ok(SharedSpool::new(Spool::on_disk(disk, left_over, most)))
}
