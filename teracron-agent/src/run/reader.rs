//! The loop that reads the kernel's records and hands spans on.

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
    life::{Life, Why},
    prepare::Executable,
    processes::Processes,
    reload::{Footprint, Reloading, footprint},
    sides::Sides,
    signals::StopSignals,
    silence,
    sinks::Sinks,
    vigil::Vigil,
};
use crate::status::Traced as TracedStatus;
use model::{
    Polls,
    error::{Context as _, Error, Result},
    totals::Cause,
};
use pipeline::output::{CallCost, InlinedCalls, StatusLine, Summary, is_closed_pipe, summary_line};
use planner::{LayoutPlan, probe::ProbeTable};
use sys::readable;
use tracer::{
    assemble::{Assembler, StepWatch},
    decode::{self, Record},
    kernel::{KernelCost, KernelProgram, Session, stop_attaching},
};

/// The reader looks this often while records come: the ring buffer holds what one core can produce
/// in several times as long.
const BUSY: Duration = Duration::from_millis(10);
/// While none come, it waits for the kernel side, which wakes it with the first one; and for its own
/// report once a second.
const IDLE: Duration = SECOND;
/// Records read before anything else is looked at.
const BATCH: usize = 50_000;
/// Between reports.
const SECOND: Duration = Duration::from_secs(1);
/// Seconds between looks whether the processes are still there: events tell it, unless one was lost.
const REFRESH_EVERY: u64 = 5;
/// The kernel's programs are timed for a second every so many: timing itself costs some, and
/// switching it on and off stops all processors for a moment.
const TIMED_EVERY: u64 = 120;

/// What is attached, and what is known of it.
pub(super) struct Traced {
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
pub(super) struct Reader {
    pub(super) session: Session,
    pub(super) table: ProbeTable,
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
    pub(super) sinks: Sinks,
    pub(super) status: StatusLine,
    pub(super) assembler: Assembler,
    spans: AsyncFd<RingBuf<MapData>>,
    pub(super) events: AsyncFd<RingBuf<MapData>>,
    pub(super) summary: Summary,
    reported: Counters,
    signals: StopSignals,
    pub(super) sides: Sides,
    pub(super) reloading: Reloading,
    pub(super) following: Following,
    pub(super) fates: Fates,
    /// What is attached.
    pub(super) footprint: Footprint,
    /// Processes that may lack breakpoints.
    pub(super) doubts: Doubts,
    /// Processes that have ended.
    pub(super) gone: Gone,
    /// The instant from which on nothing counts any more, `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) over: Option<u64>,
    /// Seconds for which futures of probes that were taken away are looked for: one may still be polled.
    pub(super) removing: u32,
}

/// Why the loop ended.
enum Stop {
    /// Targets ended, time is over, or a signal came.
    Done,
    /// Nobody reads the output any more.
    Unread,
    /// The output can't be written.
    Unwritable(io::Error),
}

impl Reader {
    /// Takes everything that a run has made.
    #[allow(clippy::too_many_arguments)] // each is a room of its own
    pub(super) fn new(
        traced: Traced,
        sinks: Sinks,
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
            sinks,
            status,
            assembler,
            spans,
            events,
            summary: Summary::default(),
            reported: Counters::default(),
            signals,
            sides,
            reloading,
            removing: 0,
            over: None,
            doubts: Doubts::default(),
            gone: Gone::default(),
        })
    }

    /// Reads until the end, then detaches and reads the rest. Answers what is still to be stopped, too.
    pub(super) async fn run(mut self) -> (Result<Summary>, Sides, StopSignals) {
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
            Stop::Unwritable(error) => Err(error),
            Stop::Done => self.drain_the_rest(),
        };
        // What was read before nobody read the output any more.
        let _ = self.sinks.flush();
        self.session.detach();
        self.summary.elapsed = started.elapsed();
        self.summary.counters = self.counters()?;
        self.summary.kernel_cost = self.cost_per_call();
        self.summary.hidden = self.sinks.hidden();
        self.summary.unread = self.sinks.dropped(Cause::Unread);
        self.summary.closed = self.sinks.dropped(Cause::Closed);
        self.summary.killed = self.fates.killed;
        self.summary.removed = self.fates.removed();
        self.summary.given_up = self.fates.given_up;
        if self.processes.is_over() {
            self.summary.killed_by = self.fates.last_killed_by();
        }
        self.tell_sides(self.summary.counters);
        self.tell_silence();
        match finished {
            Err(error) if !is_closed_pipe(&error) => {
                self.sides.notes.say(&summary_line(&self.summary));
                Err(Error::Failed(format!("cannot write spans: {error}")))
            }
            _ => Ok(self.summary),
        }
    }

    /// Says why there is nothing, where nothing was seen.
    fn tell_silence(&mut self) {
        let counters = &self.summary.counters;
        let calls = counters.get(Counter::Entered) + counters.get(Counter::Unsampled);
        if self.summary.spans + calls > 0 {
            return;
        }
        let files = self.fates.placed.traced_files();
        let traced = self.processes.alive();
        let why = silence::why(&traced, self.table.functions(), &files);
        self.sides.notes.say(&why);
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
                Err(error) => return Ok(Stop::Unwritable(error)),
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
                    Err(error) => return Ok(Stop::Unwritable(error)),
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
            processes: self.assembler.processes(&self.processes.alive()),
            functions: self.table.functions(),
            spans: self.summary.spans,
            kernel: counters.into(),
            killed: self.fates.killed,
            removed_breakpoints: self.fates.removed(),
            inlined: self.inlined_calls(),
            outputs: self.sinks.books(),
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

    /// Once a second: samples, losses, and the live line.
    fn report(&mut self, since: Duration) -> io::Result<()> {
        self.end_removed()?;
        let samples = self.sides.samples();
        self.sinks.memory(&samples)?;
        let Ok(counters) = self.counters() else {
            return Ok(());
        };
        self.tell_sides(counters);
        if counters.troubles() > self.reported.troubles() {
            self.status.clear();
            if !self.reloading.settings.quiet {
                self.sinks.loss(&counters)?;
            }
            self.reported = counters;
        }
        self.sinks.flush()?;
        self.status.show(
            self.summary.spans,
            counters.lost(),
            self.sinks.hidden(),
            since,
        );
        Ok(())
    }

    /// Reads what is there, and no more than a batch.
    pub(super) fn read_once(&mut self) -> io::Result<usize> {
        self.read_events();
        let mut read = 0;
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
                    let span = self
                        .assembler
                        .span(&raw, &self.table, self.session.layouts());
                    self.sinks.take(&raw, span, &mut self.summary)?;
                }
                Err(error) => log::error!("{error}"),
            }
        }
        if read > 0 {
            self.sinks.flush()?;
        }
        Ok(read)
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
        self.sinks.memory(&self.sides.samples())?;
        if let Ok(counters) = self.counters()
            && counters != self.reported
            && counters.troubles() > 0
        {
            self.sinks.loss(&counters)?;
        }
        self.sinks
            .finish(&self.inlined_calls(), &self.summary.unseen)
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
