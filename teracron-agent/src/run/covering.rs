//! What the reader does when processes come, change and go: their probes come and go with them.

use std::{collections::HashSet, sync::Arc, time::Instant};

use super::{
    attaching::{Done, Job, Worker, work},
    coverage::Attachment,
    following::Mapped,
    reader::Reader,
    reload::Why,
};
use image::FileKey;
use model::{error::Error, text};
use tracer::{
    kernel::is_stopping,
    process::{descendants, executable_id, face, runs_file},
};

/// What is said of a process whose stacks are copied.
pub fn copied_stacks(pid: u32, comm: &str) -> String {
    format!(
        "process {pid} ({}) runs greenlets, whose stacks are copied away and back: its calls are told without parents, \
         and where it is not certain which call ends, its end is counted as lost",
        text::shown(comm)
    )
}

impl Reader {
    /// A traced process has forked: the child has copies of its breakpoints, but no program runs for it yet.
    pub(super) fn forked(&mut self, parent: u32, child: u32, at_ns: u64) {
        let inherited = self.coverage.forked(parent, child);
        self.attach_to(child, inherited, Some(at_ns));
    }

    /// A child that is not to be traced has copies of the breakpoints all the same, and would pay for each. The kernel
    /// takes them away when a link for that child is let go, which happens as soon as it is there.
    pub(super) fn clear_child(&mut self, parent: u32, child: u32) {
        let inherited = self.coverage.forked(parent, child);
        self.coverage.forget(child);
        self.attach_to(child, inherited, None);
    }

    /// A process runs a new program. What is attached to a process goes by its main thread: it stays where that has
    /// called exec, and is lost where another thread did, which is the main thread from then on.
    pub(super) fn executed(&mut self, pid: u32, old_tid: u32, at_ns: u64) {
        self.session.forget_copies(pid);
        self.session.forget_layout(pid);
        self.session.untie(pid);
        self.undoubt(pid);
        if !self.coverage.knows(pid) {
            let loads = self.expected(pid);
            let expected = self.coverage.cover(pid, |key| loads.contains(&key));
            self.attach_to(pid, expected, Some(at_ns));
            return;
        }
        let returns = self.session.has_return_probes(pid);
        if old_tid == pid && !returns {
            return;
        }
        let before = self.coverage.files_of(pid);
        self.session.release_process(pid);
        self.coverage.forget(pid);
        if returns {
            // The new program may bring an unwinder along: what holds for it is decided anew.
            self.decide_anew = true;
        } else {
            let again = self.coverage.cover(pid, |key| before.contains(&key));
            self.attach_to(pid, again, Some(at_ns));
        }
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
        self.coverage.forget(pid);
        self.vigil.forget(pid);
        self.session.forget_copies(pid);
        self.session.untie(pid);
        self.undoubt(pid);
        self.session.release_process(pid);
    }

    /// What processes have mapped has settled.
    pub(super) fn settled(&mut self) {
        let (mapped, new) = self.following.look(&self.processes.alive(), &self.layouts);
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
            let missing = self.coverage.cover(pid, |key| files.contains(&key));
            let (returns, others): (Vec<_>, Vec<_>) = missing
                .into_iter()
                .partition(|attachment| attachment.has_return_probes());
            for attachment in returns {
                self.coverage.failed(pid, &attachment);
                self.decide_anew = true;
            }
            self.attach_to(pid, others, None);
        }
        if std::mem::take(&mut self.decide_anew) {
            self.reload(Why::Returns);
        } else if new {
            self.reload(Why::Files);
        }
    }

    fn copies_stacks(&mut self, pid: u32) {
        match self.session.copies_stacks(pid) {
            Ok(true) => {
                let comm = self.processes.comm(pid);
                self.say_all(vec![copied_stacks(pid, &comm)]);
                // Sites that were chosen for others don't do.
                self.decide_anew = true;
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

    /// Covers the processes that a new set of probes was not attached to.
    pub(super) fn cover_the_rest(&mut self) {
        self.coverage.keep_only(&self.processes.alive());
        self.following.changed();
    }

    fn attach_to(&mut self, pid: u32, mut attachments: Vec<Arc<Attachment>>, since: Option<u64>) {
        // Probes that may have killed somebody.
        attachments.retain(|it| !self.session.removed().contains(&it.module.key));
        if attachments.is_empty() {
            return;
        }
        // What only watches a runtime shows no calls.
        let since = since.filter(|_| attachments.iter().any(|it| it.of_set));
        if is_stopping() {
            let generation = self.session.generation();
            let done = work(pid, Vec::new(), generation, since, |_, _| Ok(Vec::new()));
            return self.attached(done);
        }
        let Some(attacher) = self.session.present_attacher() else {
            return self.attach_here(pid, attachments, since);
        };
        if face(pid) != pid {
            return self.attach_by_thread(pid, attachments, since);
        }
        if self.worker.is_none() {
            self.worker = Worker::start().ok();
        }
        let job = Job {
            pid,
            attachments,
            attacher,
            since,
        };
        match &self.worker {
            Some(worker) => {
                if let Err(job) = worker.attach(job) {
                    self.worker = None;
                    self.attach_here(pid, job.attachments, since);
                }
            }
            None => self.attach_here(pid, job.attachments, since),
        }
    }

    /// Its main thread has ended: only the session has a way, which is a slow one.
    fn attach_by_thread(
        &mut self,
        pid: u32,
        attachments: Vec<Arc<Attachment>>,
        since: Option<u64>,
    ) {
        let began = Instant::now();
        if self.vigil.holding.has_time(began) {
            self.attach_here(pid, attachments, since);
            self.vigil.holding.took(began, Instant::now());
        } else {
            // The next look at it tries again.
            for attachment in attachments {
                self.coverage.failed(pid, &attachment);
            }
            self.doubts.begin(pid);
        }
    }

    /// The run ends: what waits to be attached is not attached any more, but counted.
    pub(super) fn attach_no_more(&mut self) {
        for done in self.worker.take().into_iter().flat_map(Worker::finish) {
            self.attached(done);
        }
    }

    /// In this thread, where there is no other way.
    fn attach_here(&mut self, pid: u32, attachments: Vec<Arc<Attachment>>, since: Option<u64>) {
        let generation = self.session.generation();
        let done = work(pid, attachments, generation, since, |it, scope| {
            self.session.attach_present(&it.module, &it.sites, scope)
        });
        self.attached(done);
    }

    /// A job is done.
    pub(super) fn attached(&mut self, done: Done) {
        if let Some(gap) = done.gap {
            self.summary.unseen.add(gap);
        }
        self.session.keep(done.attached, done.generation);
        if !self.coverage.knows(done.pid) {
            // It has ended meanwhile.
            self.session.release_process(done.pid);
        }
        for (attachment, error) in done.failed {
            self.coverage.failed(done.pid, &attachment);
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
        let crowd = self.coverage.crowd();
        if crowd >= CROWD && !std::mem::replace(&mut self.told_crowd, true) {
            self.status.clear();
            self.sides.notes.say(&format!(
                "{crowd} processes of one program are traced one by one, which costs each of their calls about 40 ns per process; --all-processes costs the same for any number, but is felt by every process that runs the program"
            ));
        }
    }
}
