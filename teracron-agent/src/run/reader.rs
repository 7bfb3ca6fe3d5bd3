//! The loop that reads the kernel's records and hands spans to the output.

use std::{
    io,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use teracron_common::{Counter, Counters, End};
use tokio::{io::unix::AsyncFd, time::sleep};

use super::{
    Prepared,
    attaching::{Done, Worker},
    coverage::Coverage,
    doubts::Doubts,
    fates::Fates,
    following::Following,
    gone::Gone,
    life::{Event, Life, Why},
    plural,
    prepare::Executable,
    processes::Processes,
    reload::{Basis, Footprint, Probes, Ready, Reloading, footprint, place},
    sides::Sides,
    signals::StopSignals,
    vigil::Vigil,
};
use crate::status::Traced as TracedStatus;
use model::{
    Polls,
    error::{Context as _, Error, Result},
};
use pipeline::output::{
    CallCost, Drops, InlinedCalls, Output, StatusLine, Summary, is_closed_pipe,
};
use planner::{LayoutPlan, probe::ProbeTable};
use sys::readable;
use tracer::{
    assemble::{Assembler, StepWatch, monotonic_ns},
    decode::{self, Change, Dying, Record},
    kernel::{KernelCost, KernelProgram, OpenFrame, Session, stop_attaching},
    process::face,
};
use wire::Status;

/// The reader looks this often while records come: the ring buffer holds what one core can produce
/// in several times as long.
const BUSY: Duration = Duration::from_millis(10);
/// While none come, it waits for the kernel side, which wakes it with the first one; and for its own
/// report once a second.
const IDLE: Duration = SECOND;
/// Records read before anything else is looked at.
const BATCH: usize = 50_000;
/// Spans that are handed on at a time.
const CHUNK: usize = 1_024;
/// Between reports.
const SECOND: Duration = Duration::from_secs(1);
/// Seconds between looks whether the processes are still there: events tell it, unless one was lost.
const REFRESH_EVERY: u64 = 5;
/// Seconds for which futures of probes that were taken away are looked for.
const REMOVING: u32 = 5;
/// The kernel's programs are timed for a second every so many: timing itself costs some, and
/// switching it on and off stops all processors for a moment.
const TIMED_EVERY: u64 = 120;

/// What is attached, and what is known of it.
pub struct Traced {
    /// The kernel side.
    pub session: Session,
    /// The probes.
    pub prepared: Prepared,
    /// Which process has which of them.
    pub coverage: Coverage,
    /// Processes.
    pub processes: Processes,
    /// Makes spans; its clock was read before the first call counted.
    pub assembler: Assembler,
}

/// The reading side of a run.
pub struct Reader {
    pub(super) session: Session,
    table: ProbeTable,
    /// Which process has which probes, and what becomes of them.
    pub(super) life: Life,
    /// Executables whose every process is traced.
    pub(super) executables: Vec<Executable>,
    /// What the kernel side keeps of processes by address, as far as their files say it.
    pub(super) layouts: LayoutPlan,
    /// Attaches to processes that come.
    pub(super) worker: Option<Worker>,
    /// Looks whether probes are still harmless.
    pub(super) vigil: Vigil,
    /// It was said what many processes cost.
    pub(super) told_crowd: bool,
    pub(super) processes: Processes,
    output: Box<dyn Output>,
    pub(super) status: StatusLine,
    pub(super) assembler: Assembler,
    spans: AsyncFd<RingBuf<MapData>>,
    events: AsyncFd<RingBuf<MapData>>,
    pub(super) summary: Summary,
    reported: Counters,
    drops: Drops,
    signals: StopSignals,
    pub(super) sides: Sides,
    /// Spans to send, of one reading.
    to_send: Vec<wire::Span>,
    pub(super) reloading: Reloading,
    pub(super) following: Following,
    pub(super) fates: Fates,
    /// What is attached.
    footprint: Footprint,
    /// Processes that may lack breakpoints.
    pub(super) doubts: Doubts,
    /// Processes that have ended.
    gone: Gone,
    /// The instant from which on nothing counts any more, `CLOCK_MONOTONIC` in nanoseconds.
    over: Option<u64>,
    /// Seconds for which futures of probes that were taken away are looked for: one may still be polled.
    removing: u32,
}

/// Why the loop ended.
enum Stop {
    /// Targets ended, time is over, or a signal came.
    Done,
    /// Nobody reads the output any more.
    Unread,
}

impl Reader {
    /// Takes everything that a run has made.
    #[allow(clippy::too_many_arguments)] // each is a room of its own
    pub fn new(
        traced: Traced,
        output: Box<dyn Output>,
        drops: Drops,
        status: StatusLine,
        signals: StopSignals,
        sides: Sides,
        reloading: Reloading,
    ) -> Result<Self> {
        let Traced {
            mut session,
            prepared,
            coverage,
            processes,
            assembler,
        } = traced;
        let rings = session
            .take_rings()
            .ok_or_else(|| Error::Failed("the ring buffers are somebody else's".to_owned()))?;
        let waitable = |ring| readable(ring).failed(|| "cannot wait for records".to_owned());
        let (spans, events) = (waitable(rings.spans)?, waitable(rings.events)?);
        Ok(Self {
            following: Following::new(&prepared, &reloading.settings.targets.executables),
            fates: Fates::new(&prepared),
            footprint: footprint(&prepared),
            session,
            life: Life::new(coverage),
            executables: prepared.executables,
            layouts: prepared.layouts,
            worker: None,
            vigil: Vigil::default(),
            told_crowd: false,
            table: prepared.table,
            processes,
            output,
            status,
            assembler,
            spans,
            events,
            summary: Summary::default(),
            reported: Counters::default(),
            drops,
            signals,
            sides,
            to_send: Vec::new(),
            reloading,
            removing: 0,
            over: None,
            doubts: Doubts::default(),
            gone: Gone::default(),
        })
    }

    /// Reads until the end, then detaches and reads the rest. Answers what is still to be stopped, too.
    pub async fn run(mut self) -> (Result<Summary>, Sides, StopSignals) {
        let started = Instant::now();
        self.look_again();
        let stopped = self.read_until_stopped(started).await;
        self.status.clear();
        let result = stopped.and_then(|stop| self.finish(stop, started));
        if result.is_err() {
            self.session.detach();
        }
        (result, self.sides, self.signals)
    }

    fn finish(&mut self, stop: Stop, started: Instant) -> Result<Summary> {
        stop_attaching();
        let finished = match stop {
            Stop::Unread => Ok(()),
            Stop::Done => self.drain_the_rest(),
        };
        self.session.detach();
        self.summary.elapsed = started.elapsed();
        self.summary.counters = self.counters()?;
        self.summary.kernel_cost = self.cost_per_call();
        self.summary.hidden = self.output.hidden();
        self.summary.unwritten = self.drops.lines();
        self.summary.killed = self.fates.killed;
        self.summary.removed = self.fates.removed();
        self.summary.given_up = self.fates.given_up;
        if self.processes.is_over() {
            self.summary.killed_by = self.fates.last_killed_by();
        }
        self.tell_sides(self.summary.counters);
        match finished {
            Err(error) if !is_closed_pipe(&error) => {
                Err(Error::Failed(format!("cannot write spans: {error}")))
            }
            _ => Ok(self.summary),
        }
    }

    async fn read_until_stopped(&mut self, started: Instant) -> Result<Stop> {
        let steps = StepWatch::new().and_then(readable).ok();
        let mut pause = BUSY;
        let mut last_second = started;
        let mut seconds = 0u64;
        self.session.time_programs(true);
        loop {
            let left = match self.reloading.settings.duration {
                Some(duration) => match duration.checked_sub(started.elapsed()) {
                    Some(left) if !left.is_zero() => left,
                    _ => return Ok(Stop::Done),
                },
                None => Duration::MAX,
            };
            let mut process_ended = false;
            tokio::select! {
                ends = self.signals.stop_or_reload() => {
                    if ends {
                        return Ok(Stop::Done);
                    }
                    self.reload(Why::Asked);
                }
                () = self.following.settled() => self.settled(),
                done = attached(self.worker.as_mut()) => self.attached(done),
                ready = self.reloading.ready() => self.reloaded(ready),
                guard = self.spans.readable_mut(), if pause != BUSY => { if let Ok(mut guard) = guard { guard.clear_ready(); } }
                guard = self.events.readable_mut() => { if let Ok(mut guard) = guard { guard.clear_ready(); } }
                () = self.processes.ended() => process_ended = true,
                () = clock_set(steps.as_ref()) => {}
                () = sleep(pause.min(left)) => {}
            }
            self.assembler.clock.update();
            let read = match self.read_once() {
                Ok(read) => read,
                Err(error) if is_closed_pipe(&error) => return Ok(Stop::Unread),
                Err(error) => return Err(Error::Failed(format!("cannot write spans: {error}"))),
            };
            pause = if read > 0 { BUSY } else { IDLE };
            if let Err(error) = self.session.draw_ahead() {
                log::debug!("{error}");
            }
            if self.processes.take_changed() {
                self.sides.processes(self.processes.alive());
            }
            if process_ended {
                self.processes.after_end()?;
            }
            let since = last_second.elapsed();
            if since >= SECOND {
                last_second = Instant::now();
                if seconds.is_multiple_of(TIMED_EVERY) {
                    self.session.time_programs(false);
                }
                seconds += 1;
                if seconds.is_multiple_of(TIMED_EVERY) {
                    self.session.time_programs(true);
                }
                if self.following.has_new_executable() {
                    self.reload(Why::Files);
                }
                if seconds.is_multiple_of(REFRESH_EVERY) {
                    self.processes.refresh();
                }
                self.session.settle_retired();
                self.forget_gone();
                let told = self.fates.look(&self.processes.named(), &self.table);
                self.say_all(told);
                self.keep_vigil();
                match self.report(since) {
                    Err(error) if is_closed_pipe(&error) => return Ok(Stop::Unread),
                    Err(error) => {
                        return Err(Error::Failed(format!("cannot write spans: {error}")));
                    }
                    Ok(()) => {}
                }
            }
            if self.processes.is_over() && read == 0 {
                return Ok(Stop::Done);
            }
        }
    }

    /// What a status says of the reader.
    fn tell_sides(&mut self, counters: Counters) {
        self.sides.report(TracedStatus {
            processes: self.processes.alive(),
            functions: self.table.functions(),
            spans: self.summary.spans,
            kernel: counters.into(),
            killed: self.fates.killed,
            removed_breakpoints: self.fates.removed(),
            inlined: self.inlined_calls(),
        });
    }

    /// What was counted where functions were inlined.
    fn inlined_calls(&self) -> Vec<InlinedCalls> {
        let counted = self.session.inlined_calls(self.table.counted());
        counted
            .into_iter()
            .filter_map(|(probe, calls)| {
                let name = self.table.name(probe)?;
                Some(InlinedCalls {
                    workflow: name.workflow.to_string(),
                    operation: name.operation.to_string(),
                    calls,
                })
            })
            .collect()
    }

    /// Futures of probes that were taken away are polled unseen from then on: their spans stay as they are.
    fn end_removed(&mut self) -> io::Result<()> {
        if self.removing == 0 || self.table.futures().is_empty() {
            return Ok(());
        }
        self.removing -= 1;
        let in_force = self.table.in_force();
        let left = self
            .session
            .take_waiting(|key| !in_force.contains(&key.probe));
        self.show_left(left, End::Open)
    }

    /// Once a second: samples, losses, and the live line.
    fn report(&mut self, since: Duration) -> io::Result<()> {
        self.end_removed()?;
        let samples = self.sides.samples();
        for sample in &samples {
            self.output.memory(sample)?;
        }
        let Ok(counters) = self.counters() else {
            return Ok(());
        };
        self.tell_sides(counters);
        if counters.troubles() > self.reported.troubles() {
            self.status.clear();
            if !self.reloading.settings.quiet {
                self.output.loss(&counters)?;
            }
            self.reported = counters;
        }
        self.output.flush()?;
        self.status.show(
            self.summary.spans,
            counters.lost(),
            self.output.hidden(),
            since,
        );
        Ok(())
    }

    /// Reads what is there, and no more than a batch.
    fn read_once(&mut self) -> io::Result<usize> {
        self.read_events();
        let mut read = 0;
        let wanted = self.sides.wants_spans();
        let ring = self.spans.get_mut();
        while read < BATCH {
            let Some(item) = ring.next() else {
                break;
            };
            if read == 0 {
                self.status.clear();
            }
            read += 1;
            match decode::record(&item) {
                Ok(Record::Capture(raw)) => self.assembler.capture(&raw, &self.table),
                Ok(Record::Future(raw)) => {
                    let polls = Polls {
                        count: raw.polls,
                        busy_ns: raw.busy_ns,
                    };
                    self.assembler.polled(raw.span_id, polls);
                }
                Ok(Record::Span(mut raw)) => {
                    if let Some(over) = self.over
                        && raw.as_seen_at(over)
                    {
                        self.assembler.forget_result(raw.record.span_id);
                    }
                    if raw.end == End::Unwound
                        && self.doubts.hold_for(raw.record.tgid, raw.record.start_ns)
                    {
                        self.doubts.calls += 1;
                        self.assembler.forget(raw.record.span_id);
                        continue;
                    }
                    self.summary.spans += 1;
                    self.summary.open += u64::from(raw.end == End::Open);
                    self.summary.traces += u64::from(raw.record.parent_id == [0, 0]);
                    if let Some(span) =
                        self.assembler
                            .span(&raw, &self.table, self.session.layouts())
                    {
                        self.summary.failed += u64::from(span.status == Status::Failed);
                        if wanted && let Some(name) = self.table.name(raw.record.probe) {
                            self.to_send.push(span.to_wire(name));
                        }
                        self.output.span(&span)?;
                    }
                }
                Err(error) => log::error!("{error}"),
            }
            if self.to_send.len() >= CHUNK {
                self.sides.spans(std::mem::take(&mut self.to_send));
            }
        }
        if read > 0 {
            self.sides.spans(std::mem::take(&mut self.to_send));
            self.output.flush()?;
        }
        Ok(read)
    }

    fn read_events(&mut self) {
        let (mut changes, mut ended) = (Vec::new(), Vec::new());
        let over = self.over;
        let ring = self.events.get_mut();
        while let Some(item) = ring.next() {
            match decode::change(&item) {
                Ok(change) => {
                    log::debug!("{change:?}");
                    changes.push(change);
                }
                Err(error) => log::error!("{error}"),
            }
        }
        for change in changes {
            match change {
                Change::Forked {
                    parent,
                    child,
                    at_ns,
                } => {
                    if !self.reloading.settings.targets.follow {
                        self.live(Event::ForkedAway { parent, child });
                        continue;
                    }
                    self.assembler.learn_process(child);
                    self.session.forked(parent, child);
                    self.fates.placed.forked(parent, child);
                    self.live(Event::Forked {
                        parent,
                        child,
                        at_ns,
                    });
                }
                Change::Executed {
                    pid,
                    old_tid,
                    at_ns,
                } => {
                    self.assembler.learn_process(pid);
                    self.session.forget_layout(pid);
                    self.fates.executed(pid);
                    self.sides.forget(pid);
                    self.executed(pid, old_tid, at_ns);
                    self.following.changed();
                }
                Change::Exited { pid, code, at_ns } => {
                    let comm = self.processes.comm(pid);
                    self.mourn(pid, code, &comm);
                    let late = over.is_some_and(|over| at_ns > over);
                    self.gone.add(pid, Instant::now());
                    ended.push((pid, if late { End::Open } else { End::ProcessExited }));
                }
                Change::ThreadEnded { pid, tid } => self.thread_ended(pid, tid),
                Change::Mapped(pid) => {
                    self.following.changed();
                    self.fates.placed.changed(pid);
                }
                Change::Dying(one) => {
                    let comm = self.processes.comm(one.pid);
                    self.suspect(one, &comm);
                }
            }
            self.processes.change(change);
        }
        for (pid, end) in ended {
            self.ended(pid);
            let left = self.session.take_left(pid);
            if !left.is_empty()
                && let Err(error) = self.show_left(left, end)
            {
                log::debug!("{error}");
            }
        }
    }

    /// A process gets a deadly signal: takes out what may have been the cause, before others die of it.
    fn suspect(&mut self, dying: Dying, comm: &str) {
        let pid = dying.pid;
        let Some(suspicion) = self.fates.dying(dying, comm, &self.table) else {
            return;
        };
        for key in suspicion.files {
            self.live(Event::FileRemoved(key));
            if self.session.remove_file(key) {
                let others = self.processes.alive().into_iter().filter(|it| *it != pid);
                let others = self.fates.placed.is_mapped(key, others);
                self.fates.given_up += u64::from(others || self.processes.is_endless());
            }
        }
        self.say_all(vec![suspicion.note]);
    }

    /// A process has ended: tells it where a signal did it.
    fn mourn(&mut self, pid: u32, code: u32, comm: &str) {
        let Some(obituary) = self.fates.exited(pid, code, comm, &self.table) else {
            return;
        };
        // A closed pipe is noticed again with the next span.
        let _ = self.output.death(&obituary.death);
        self.say_all(obituary.note.into_iter().collect());
    }

    /// Forgets those that ended a while ago.
    fn forget_gone(&mut self) {
        for pid in self.gone.take_due(Instant::now()) {
            // Another may have its id by now.
            if !self.processes.knows(pid) {
                self.assembler.forget_process(pid);
                self.session.forget_layout(pid);
            }
        }
    }

    pub(super) fn say_all(&mut self, notes: Vec<String>) {
        if !notes.is_empty() {
            self.status.clear();
        }
        for note in notes {
            self.sides.notes.say(&note);
        }
    }

    /// Shows calls of which the kernel side tells no end: they end now, or with the run, in the way given.
    fn show_left(&mut self, left: Vec<OpenFrame>, end: End) -> io::Result<()> {
        let now = self.over.unwrap_or_else(monotonic_ns);
        for mut open in left {
            open.record.end_ns = now;
            let mut end = end;
            if let Some(polls) = open.polls {
                self.assembler.polled(open.record.span_id, polls);
                if end == End::ProcessExited && self.table.is_undropped(open.record.probe) {
                    // It may have been dropped long ago.
                    end = End::Unwound;
                }
            }
            let raw = decode::RawSpan {
                record: open.record,
                end,
                type_name: &[],
                message: &[],
            };
            self.summary.spans += 1;
            self.summary.open += u64::from(end == End::Open);
            self.summary.traces += u64::from(raw.record.parent_id == [0, 0]);
            if let Some(span) = self
                .assembler
                .span(&raw, &self.table, self.session.layouts())
            {
                self.summary.failed += u64::from(span.status == Status::Failed);
                if let Some(name) = self.table.name(raw.record.probe) {
                    self.sides.spans(vec![span.to_wire(name)]);
                }
                self.output.span(&span)?;
            }
        }
        Ok(())
    }

    /// Detaches, reading on meanwhile so that nothing is lost, then shows what is still open.
    fn drain_the_rest(&mut self) -> io::Result<()> {
        match self.session.count_no_more() {
            Ok(at_ns) => self.over = Some(at_ns),
            Err(error) => log::debug!("{error}"),
        }
        let told = self.fates.look_last(&self.processes.named(), &self.table);
        self.say_all(told);
        self.attach_no_more();
        let detaching = self.session.detach_in_background();
        if let Some(detaching) = detaching {
            while !detaching.is_finished() {
                if self.read_once()? == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            let _ = detaching.join();
        }
        while self.read_once()? > 0 {}
        let left = self.session.open_frames();
        self.show_left(left, End::Open)?;
        for sample in self.sides.samples() {
            self.output.memory(&sample)?;
        }
        if let Ok(counters) = self.counters()
            && counters != self.reported
            && counters.troubles() > 0
        {
            self.output.loss(&counters)?;
        }
        self.output.inlined(&self.inlined_calls())?;
        self.output.unseen(&self.summary.unseen)?;
        self.output.finish()
    }

    /// Plans the probes anew, in a thread.
    pub(super) fn reload(&mut self, why: Why) {
        let Self {
            session,
            table,
            processes,
            life,
            footprint,
            ..
        } = self;
        self.reloading.begin(why, || {
            let pids = processes.alive();
            // Where a main thread has ended, only the session has a way.
            let attacher = session
                .next_attacher()
                .filter(|_| pids.iter().all(|pid| face(*pid) == *pid));
            Some(Basis {
                pids,
                table: table.next(),
                features: session.features(),
                attacher,
                watched: life.coverage().watched(),
                footprint: footprint.clone(),
                removed: session.removed().clone(),
            })
        });
    }

    /// Puts new settings in force, or says why not.
    fn reloaded(&mut self, ready: Result<Ready>) {
        let result = ready.and_then(|ready| self.take(ready));
        // A closed pipe is noticed again with the next span.
        let _ = self.end_removed();
        self.status.clear();
        match result {
            Ok(notes) => {
                for note in notes {
                    self.sides.notes.say(&note);
                }
            }
            // A process that has become another program may have none of what is looked for.
            Err(error) => self.sides.notes.say(&format!("nothing changed: {error}")),
        }
        if let Some(why) = self.reloading.take_once_more() {
            self.reload(why);
        }
    }

    fn take(&mut self, ready: Ready) -> Result<Vec<String>> {
        let Ready {
            settings,
            probes,
            refused,
        } = ready;
        let mut notes = refused;
        let Some(mut settings) = settings else {
            if let Some(Some(probes)) = probes {
                // The rest was said at the start.
                notes.extend(self.take_probes(probes)?.pop());
            }
            return Ok(notes);
        };
        self.sides.change(&mut settings)?;
        if settings.targets.sample_rate != self.reloading.settings.targets.sample_rate {
            self.session.sample(settings.targets.sample_rate)?;
        }
        match probes {
            None => {}
            Some(None) => {
                self.session.change_over(Vec::new())?;
                self.change_over(Coverage::default());
                self.table = self.table.next();
                self.fates.placed.untraced();
                self.removing = REMOVING;
                notes.push("no function is traced now".to_owned());
            }
            Some(Some(probes)) => notes.extend(self.take_probes(probes)?),
        }
        notes.extend(self.reloading.take(settings));
        Ok(notes)
    }

    fn take_probes(&mut self, probes: Probes) -> Result<Vec<String>> {
        let Probes { prepared, attached } = probes;
        let (coverage, attached) = match attached {
            Some((coverage, attached)) => (coverage, attached.take()),
            None => {
                self.session.add_plans(&prepared.table)?;
                let watched = self.life.coverage().watched();
                let mut attached = Vec::new();
                let (coverage, places) = prepared.coverage();
                for (it, scope) in places {
                    if it.of_set || !watched.contains(&place(it.module.key, scope)) {
                        attached.extend(self.session.attach_next(&it.module, &it.sites, scope)?);
                    }
                    // It takes its time, and records come meanwhile.
                    let _ = self.read_once();
                }
                (coverage, attached)
            }
        };
        self.session.change_over(attached)?;
        self.session.keep_spawning(&prepared.table)?;
        for executable in &prepared.executables {
            self.session.add_executable(executable.id)?;
        }
        for target in &prepared.targets {
            self.session
                .add_target_with(target.process.pid, target.layout.clone())?;
            self.processes.add(target.process.pid);
        }
        self.footprint = footprint(&prepared);
        self.fates.placed.plan(&prepared, self.session.removed());
        self.executables = prepared.executables;
        self.layouts = prepared.layouts;
        self.change_over(coverage);
        // What came meanwhile has nothing of it yet.
        self.following.changed();
        let mut notes = prepared.notes;
        notes.push(format!(
            "tracing {} now",
            plural(prepared.table.functions(), "function")
        ));
        self.table = prepared.table;
        self.removing = REMOVING;
        Ok(notes)
    }

    /// Another set of probes counts from now on.
    fn change_over(&mut self, next: Coverage) {
        let alive = self.processes.alive();
        self.live(Event::ChangedOver { next, alive });
    }

    /// What the kernel side counts, and what is known only here.
    fn counters(&self) -> Result<Counters> {
        let mut counters = self.session.counters()?;
        counters.0[Counter::LostEnds as usize] += self.doubts.calls;
        counters.0[Counter::LostCaptures as usize] += self.assembler.forgotten_captures();
        Ok(counters)
    }

    /// Nanoseconds in the kernel side per call: its beginning and its end.
    fn cost_per_call(&self) -> Option<CallCost> {
        let average =
            |cost: KernelCost| (cost.runs > 0).then(|| cost.nanoseconds as f64 / cost.runs as f64);
        let entries = self.session.cost(KernelProgram::opens);
        let exits = self.session.cost(KernelProgram::is_exit);
        Some(CallCost {
            nanoseconds: average(entries)? + average(exits)?,
            calls: entries.runs,
        })
    }
}

/// Waits for a job of the attaching thread.
async fn attached(worker: Option<&mut Worker>) -> Done {
    match worker {
        Some(worker) => match worker.done().await {
            Some(done) => done,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Waits until the wall clock is set.
async fn clock_set(watch: Option<&AsyncFd<StepWatch>>) {
    let Some(watch) = watch else {
        return std::future::pending().await;
    };
    if let Ok(mut guard) = watch.readable().await {
        let _ = guard.get_inner().arm();
        guard.clear_ready();
    }
}
