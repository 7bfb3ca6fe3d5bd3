//! Delivering, in a process of its own.
//!
//! What is traced goes to a child of the same executable, which scrubs, seals, keeps and sends it (`crates/pipeline`),
//! and runs the user's scrubber. It is shut in (`sys::walls`): a user of its own where the agent is root, no capability,
//! nobody else's eyes, no descriptor but its socket, the books and the spool's folder, and system calls forbidden that
//! nothing of this needs. It dies with the agent. It may die of anything: then another is started, and what was in its
//! memory is counted as lost.
//!
//! | room | what it does |
//! | --- | --- |
//! | `queue` | what waits to go there, bounded; whoever fills it never waits |
//! | `keeper` | the thread that gives it what comes, and starts another |
//! | `process` | one process, as the agent sees it |
//! | `child` | the same from within |
//! | `messages`, `packed` | what they tell each other |
//! | `books` | the child's books, in memory that the agent reads, too |
//! | `ledger` | the books of the run, over all its children |

mod books;
mod child;
mod keeper;
mod ledger;
mod messages;
mod packed;
mod process;
mod queue;
mod user;

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::geteuid;

pub use books::State;
pub(crate) use child::work;
pub use ledger::{Ledger, Processes};
pub use messages::{RuleSet, Setup};
pub use packed::Packed;
pub use queue::Intake;

use keeper::{GRACE, Keeper};
use messages::keep;
use model::{
    error::{Context as _, Error, Result},
    notes::Notes,
};
use pipeline::own_files::{Folder, Refused, give};
use process::{Basis, Line, MakeFolder};
use queue::Queue;

/// The way to the service.
pub struct Delivering {
    intake: Intake,
    line: Line,
    /// Told when the keeper has ended.
    ended: Receiver<()>,
    notes: Notes,
}

impl Delivering {
    /// Starts the process; what an earlier run left in the spool goes out first. `spool` is the user's folder, `None`
    /// where batches wait in memory. What is secret in the setup is gone from this process afterwards, but for a file in
    /// memory that the next child is given.
    ///
    /// # Errors
    /// Where the process can't be started, or finds that it can't deliver: the spool, the scrubber, TLS.
    pub fn start(setup: Setup, spool: Option<&Path>, notes: Notes) -> Result<Self> {
        let folder = spool.map(|spool| make_folder(spool, &setup.slug));
        let ledger = Arc::new(Ledger::new(folder.is_none()));
        let queue = Arc::new(Queue::default());
        let line = Line::default();
        let keeper = Keeper {
            rules: None,
            basis: Basis {
                setup: keep(&setup).failed(|| "cannot keep the settings".to_owned())?,
                folder,
                ledger: ledger.clone(),
                queue: queue.clone(),
                notes,
                line: line.clone(),
            },
        };
        drop(setup);
        let (tell, started) = sync_channel(1);
        let (ends, ended) = sync_channel(1);
        thread::Builder::new()
            .name("teracron-deliver".to_owned())
            .spawn(move || {
                keeper.run(&tell);
                // The process dies with this thread, so it does nothing after this.
                let _ = ends.send(());
            })
            .failed(|| "cannot start a thread".to_owned())?;
        started
            .recv()
            .unwrap_or_else(|_| Err(Error::Failed("the thread that delivers died".to_owned())))?;
        Ok(Self {
            intake: Intake { queue, ledger },
            line,
            ended,
            notes,
        })
    }

    /// The way in.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// The books.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.intake.ledger.clone()
    }

    /// New rules for what comes from now on. Where the process finds that it can't use them, it says so, and goes on
    /// with those before.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub fn change(&self, rules: &RuleSet) -> Result<()> {
        let kept = keep(rules).failed(|| "cannot keep the settings".to_owned())?;
        match self.intake.rules(Arc::new(kept)) {
            true => Ok(()),
            false => Err(Error::Failed(
                "too many changes wait for the process that delivers".to_owned(),
            )),
        }
    }

    /// Delivers what is still here, for as long as a stop may take.
    pub fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        self.intake.queue.close(deadline);
        self.line.stop(patience);
        if self.ended.recv_timeout(patience + GRACE).is_err() {
            self.line.cut();
            if self.ended.recv_timeout(GRACE).is_err() {
                self.notes
                    .say("the process that delivers does not end: it is left alone");
            }
        }
    }
}

/// How a project's folder is made: where the agent is root, it is given to the user that delivers.
fn make_folder(spool: &Path, slug: &str) -> MakeFolder {
    let (spool, slug) = (spool.to_owned(), slug.to_owned());
    Arc::new(move || {
        let made = if geteuid().is_root() {
            give(&spool, &slug, user::user(), &user::former())
        } else {
            Folder::make(&spool)
                .and_then(|folder| folder.sub(&slug))
                .map(Folder::into_handle)
        };
        made.map_err(|refused| no_spool(&refused))
    })
}

/// What to say where a spool can't be used.
fn no_spool(refused: &Refused) -> Error {
    Error::Failed(format!(
        "cannot use the spool: {refused}; --spool-dir names another, --no-spool does without"
    ))
}
