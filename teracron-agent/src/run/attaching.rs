//! Attaching to processes that come while the agent runs, in a thread of its own: the kernel may take some
//! milliseconds, and the reader must not wait.

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tokio::sync::mpsc as results;

use super::{
    coverage::Attachment,
    life::{JobId, Work},
};
use model::error::{Error, Result};
use pipeline::output::Gap;
use tracer::{
    assemble::monotonic_ns,
    kernel::{Attached, Attacher, Scope, is_stopping},
    process::Process,
};

/// Probes for a process.
pub(super) struct Job {
    /// What is attached to whom.
    pub work: Work,
    /// For which set of probes.
    pub attacher: Attacher,
}

/// What became of a [`Job`].
pub(super) struct Done {
    /// Which job it was.
    pub job: JobId,
    /// The process.
    pub pid: u32,
    /// What is attached now.
    pub attached: Vec<Attached>,
    /// Of which set of probes.
    pub generation: u8,
    /// What could not be attached, and why; nothing where the process has ended.
    pub failed: Vec<(Arc<Attachment>, Error)>,
    /// How long its calls were not seen, where it is new.
    pub gap: Option<Gap>,
}

/// The thread that attaches.
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    done: results::UnboundedReceiver<Done>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (finished, done) = results::unbounded_channel();
        let thread = thread::Builder::new()
            .name("teracron-attach".to_owned())
            .spawn(move || {
                while let Ok(job) = todo.recv() {
                    let Job { mut work, attacher } = job;
                    // Whoever stops wants no more probes, but to know for how long there were none.
                    if is_stopping() {
                        work.attachments.clear();
                    }
                    let done = perform(work, attacher.generation, |it, scope| {
                        attacher.attach(&it.module, &it.sites, scope)
                    });
                    if finished.send(done).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { jobs, done, thread })
    }

    /// Answers what became of everything that was handed over.
    pub(super) fn finish(self) -> Vec<Done> {
        let Self {
            jobs,
            mut done,
            thread,
        } = self;
        drop(jobs);
        let _ = thread.join();
        std::iter::from_fn(|| done.try_recv().ok()).collect()
    }

    /// Hands a job over; gives it back where the thread is gone.
    pub(super) fn attach(&self, job: Job) -> std::result::Result<(), Job> {
        self.jobs.send(job).map_err(|mpsc::SendError(job)| job)
    }

    /// The next finished job.
    pub(super) async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }
}

/// Attaches to one process, by whatever way there is.
pub(super) fn perform(
    work: Work,
    generation: u8,
    mut attach: impl FnMut(&Attachment, Scope) -> Result<Vec<Attached>>,
) -> Done {
    let Work {
        job,
        pid,
        attachments,
        since,
    } = work;
    let mut done = Done {
        job,
        pid,
        attached: Vec::new(),
        generation,
        failed: Vec::new(),
        gap: None,
    };
    let mut ended = !is_alive(pid);
    let wanted = if ended { Vec::new() } else { attachments };
    for attachment in wanted {
        match attach(&attachment, Scope::OneProcess(pid)) {
            Ok(attached) => done.attached.extend(attached),
            Err(_) if !is_alive(pid) => {
                ended = true;
                break;
            }
            Err(error) => done.failed.push((attachment, error)),
        }
    }
    done.gap = since.map(|at| {
        if ended {
            Gap::Ended
        } else {
            Gap::Lasted(Duration::from_nanos(monotonic_ns().saturating_sub(at)))
        }
    });
    done
}

/// A process that has ended without its parent having noticed is dead, too.
fn is_alive(pid: u32) -> bool {
    Process::find(pid).is_ok()
}
