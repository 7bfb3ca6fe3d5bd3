//! What the reader does when processes come, change and go: it tells [`life`](super::life), and does what that says.

use std::{collections::HashSet, time::Instant};

use super::{
    attaching::{Done, Job, Worker, perform},
    coverage::Attachment,
    following::Mapped,
    life::{Action, Event, Work},
    reader::Reader,
};
use image::FileKey;
use model::{error::Error, text};
use tracer::{
    kernel::is_stopping,
    process::{descendants, executable_id, face, runs_file},
};

/// What is said of a process whose stacks are copied.
pub(super) fn copied_stacks(pid: u32, comm: &str) -> String {
    format!(
        "process {pid} ({}) runs greenlets, whose stacks are copied away and back: its calls are told without parents, \
         and where it is not certain which call ends, its end is counted as lost",
        text::shown(comm)
    )
}

impl Reader {
    /// Tells what happens, and does what is to be done then.
    pub(super) fn live(&mut self, event: Event) {
        for action in self.life.on(event) {
            match action {
                Action::Attach(work) => self.attach(work),
                Action::Release(pid) => self.session.release_process(pid),
                Action::ReleaseReturns(pid) => self.session.release_returns(pid),
                Action::Plan(why) => self.reload(why),
            }
        }
    }

    /// A process runs a new program.
    pub(super) fn executed(&mut self, pid: u32, old_tid: u32, at_ns: u64) {
        self.session.forget_copies(pid);
        self.session.forget_layout(pid);
        self.session.untie(pid);
        self.undoubt(pid);
        let event = Event::Executed {
            pid,
            by_main: old_tid == pid,
            has_returns: self.session.has_return_probes(pid),
            loads: self.expected(pid),
            at_ns,
        };
        self.live(event);
    }

    /// The files that a new process of a traced executable is about to map.
    fn expected(&self, pid: u32) -> HashSet<FileKey> {
        let id = executable_id(pid);
        self.executables
            .iter()
            .filter(|executable| Some(executable.id) == id)
            .flat_map(|executable| &executable.images)
            .map(|module| module.key)
            .collect()
    }

    /// A process has ended, and what was attached to it is of no use.
    pub(super) fn ended(&mut self, pid: u32) {
        self.vigil.forget(pid);
        self.session.forget_copies(pid);
        self.session.untie(pid);
        self.undoubt(pid);
        self.live(Event::Ended { pid });
    }

    /// What processes have mapped has settled.
    pub(super) fn settled(&mut self) {
        let (mapped, new_file) = self.following.look(&self.processes.alive(), &self.layouts);
        for Mapped {
            pid,
            files,
            copies_stacks,
            layout,
        } in mapped
        {
            if let Err(error) = self.session.set_layout(pid, layout) {
                log::debug!("{error}");
            }
            if copies_stacks {
                self.copies_stacks(pid);
            }
            self.vigil.forget(pid);
            self.live(Event::Mapped { pid, files });
        }
        self.live(Event::Settled { new_file });
    }

    fn copies_stacks(&mut self, pid: u32) {
        match self.session.copies_stacks(pid) {
            Ok(true) => {
                let comm = self.processes.comm(pid);
                self.say_all(vec![copied_stacks(pid, &comm)]);
                self.live(Event::CopiesStacks);
            }
            Ok(false) => {}
            Err(error) => log::debug!("{error}"),
        }
    }

    /// Looks for processes that came between the first look and the first event: of a traced executable, or forked by
    /// a traced process.
    pub(super) fn look_again(&mut self) {
        let known = self.processes.alive();
        let mut found: Vec<u32> = self
            .executables
            .iter()
            .filter_map(|executable| executable.images.first())
            .flat_map(runs_file)
            .collect();
        if self.reloading.settings.targets.follow {
            found.extend(descendants(&known).same_program);
        }
        found.retain(|pid| !known.contains(pid) && *pid != std::process::id());
        for pid in found {
            if let Err(error) = self.session.add_target(pid) {
                log::debug!("{error}");
            }
            self.processes.add(pid);
            self.assembler.learn_process(pid);
            self.following.changed();
        }
    }

    /// Attaches, in the thread for it where that is possible.
    fn attach(&mut self, mut work: Work) {
        if is_stopping() {
            // For how long its calls were not seen is still told.
            work.attachments.clear();
            return self.attach_here(work);
        }
        let Some(attacher) = self.session.present_attacher() else {
            return self.attach_here(work);
        };
        if face(work.pid) != work.pid {
            return self.attach_by_thread(work);
        }
        if self.worker.is_none() {
            self.worker = Worker::start().ok();
        }
        match &self.worker {
            Some(worker) => {
                if let Err(job) = worker.attach(Job { work, attacher }) {
                    self.worker = None;
                    self.attach_here(job.work);
                }
            }
            None => self.attach_here(work),
        }
    }

    /// Its main thread has ended: only the session has a way, which is a slow one.
    fn attach_by_thread(&mut self, work: Work) {
        let began = Instant::now();
        if self.vigil.holding.has_time(began) {
            self.attach_here(work);
            self.vigil.holding.took(began, Instant::now());
        } else {
            // The next look at it tries again.
            self.live(Event::Postponed { job: work.job });
            self.doubts.begin(work.pid);
        }
    }

    /// The run ends: what waits to be attached is not attached any more, but counted.
    pub(super) fn attach_no_more(&mut self) {
        for done in self.worker.take().into_iter().flat_map(Worker::finish) {
            self.attached(done);
        }
    }

    /// In this thread, where there is no other way.
    fn attach_here(&mut self, work: Work) {
        let generation = self.session.generation();
        let done = perform(work, generation, |it, scope| {
            self.session.attach_present(&it.module, &it.sites, scope)
        });
        self.attached(done);
    }

    /// A job is done.
    pub(super) fn attached(&mut self, done: Done) {
        if let Some(gap) = done.gap {
            self.summary.unseen.add(gap);
        }
        let failed = done.failed.iter().map(|(attachment, _)| attachment);
        if self.life.attached(done.job, failed) {
            self.session.keep(done.attached, done.generation);
        } else {
            self.session.let_go(done.attached);
        }
        for (attachment, error) in done.failed {
            self.tell_failed(done.pid, &attachment, &error);
        }
        self.tell_crowd();
    }

    pub(super) fn tell_failed(&mut self, pid: u32, attachment: &Attachment, error: &Error) {
        self.summary.uncovered += 1;
        if self.summary.uncovered == 1 {
            self.status.clear();
            self.sides.notes.say(&format!(
                "process {pid} is not traced in {}: {error}",
                text::shown(&attachment.module.path)
            ));
        }
    }

    /// Each process that one file's probes are attached to costs the calls of all a little.
    fn tell_crowd(&mut self) {
        const CROWD: usize = 64;
        let crowd = self.life.coverage().crowd();
        if crowd >= CROWD && !std::mem::replace(&mut self.told_crowd, true) {
            self.status.clear();
            self.sides.notes.say(&format!(
                "{crowd} processes of one program are traced one by one, which costs each of their calls about 40 ns per process; --all-processes costs the same for any number, but is felt by every process that runs the program"
            ));
        }
    }
}
