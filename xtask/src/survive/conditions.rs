//! One cell of the matrix: a target under one condition.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use super::{
    agent::{self, Agent, Log, Start, Verdict, Wanted},
    peers,
    process::{Deadline, Program},
    subject::{Bystander, ROUND, STORM, Subject, Untraced},
    targets::Built,
};
use crate::shell::Result;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Condition {
    /// Traced from before the work to after it.
    Attach,
    /// Attached and detached again and again while it works.
    Detach,
    /// The agent is killed in the middle of the work.
    Killed,
    /// The agent is stopped and goes on.
    Stopped,
    /// Two agents on the same functions.
    Two,
    /// gdb is attached, too.
    Gdb,
    /// strace -f is attached, too.
    Strace,
    /// bpftrace on the same functions, too.
    Bpftrace,
    /// It forks and executes all the time.
    Storm,
}

impl Condition {
    pub(super) const ALL: [Self; 9] = [
        Self::Attach,
        Self::Detach,
        Self::Killed,
        Self::Stopped,
        Self::Two,
        Self::Gdb,
        Self::Strace,
        Self::Bpftrace,
        Self::Storm,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Detach => "detach, again and again",
            Self::Killed => "agent killed",
            Self::Stopped => "agent stopped",
            Self::Two => "two agents",
            Self::Gdb => "gdb",
            Self::Strace => "strace -f",
            Self::Bpftrace => "bpftrace beside",
            Self::Storm => "fork and exec storm",
        }
    }
}

/// What became of a cell.
pub(super) enum Outcome {
    /// Nothing went wrong with the target; the spans beside its log.
    Lived(Verdict),
    /// The agent refused it, and it lived.
    Refused(String),
    /// The target or a stranger was harmed.
    Harmed(String),
    /// It could not be judged.
    Failed(String),
}

/// A judged cell.
pub(super) struct Cell {
    pub outcome: Outcome,
    /// Bytes of a bystander's code that were changed while the agent traced.
    pub strangers: Option<u64>,
    pub notes: Vec<String>,
}

/// What all cells share.
pub(super) struct Setup {
    pub agent: PathBuf,
    pub bystander: PathBuf,
    /// For the targets' own files; emptied for each start.
    pub folder: PathBuf,
    /// Seconds that a cell may take.
    pub seconds: f64,
    /// How often "detach" does it, and seconds after which it does it no more.
    pub detaches: usize,
    pub detach_seconds: f64,
}

/// At least so many calls are compared in a cell.
const SPANS: u64 = 1_000;

/// What went wrong: the target's fault to bear, or the matrix's own.
pub(super) enum Wrong {
    Harm(String),
    Matrix(String),
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Self::Matrix(text)
    }
}

pub(super) fn harm(text: String) -> Wrong {
    Wrong::Harm(text)
}

/// Runs a cell; nothing of it is left afterwards.
pub(super) fn run(setup: &Setup, built: &Built, untraced: &Untraced, condition: Condition) -> Cell {
    let mut cell = Cell {
        outcome: Outcome::Failed(String::new()),
        strangers: None,
        notes: Vec::new(),
    };
    let deadline = Deadline::after(setup.seconds);
    cell.outcome = match judge(setup, built, untraced, condition, deadline, &mut cell) {
        Ok(outcome) => outcome,
        Err(Wrong::Harm(text)) => Outcome::Harmed(text),
        Err(Wrong::Matrix(text)) => Outcome::Failed(text),
    };
    super::process::kill_all();
    cell
}

type Judged<T> = std::result::Result<T, Wrong>;

fn judge(
    setup: &Setup,
    built: &Built,
    untraced: &Untraced,
    condition: Condition,
    deadline: Deadline,
    cell: &mut Cell,
) -> Judged<Outcome> {
    let functions = built.target.functions;
    let mut subject = Subject::start(&built.launch, &setup.folder.join("target"), deadline)?;
    let files = subject.files()?;
    let bystander = Bystander::start(&setup.bystander, &files, deadline)?;
    let beside = beside(condition, built, &subject, deadline)?;
    let pids = subject.pids.clone();
    let wanted = [Wanted {
        pids: &pids,
        functions,
    }];
    let mut log = Log::default();
    let mut agents = Vec::new();
    for _ in 0..1 + usize::from(condition == Condition::Two) {
        match agent::start(&setup.agent, &wanted, deadline)? {
            Start::Tracing(agent) => agents.push(agent),
            Start::Refused(why) => {
                // It goes by itself: a debugger that is killed leaves its own breakpoints.
                if let Some(beside) = beside {
                    beside.leave(&pids, deadline, &mut cell.notes)?;
                }
                subject
                    .round(ROUND, untraced, &mut log, deadline)
                    .map_err(harm)?;
                subject.restored(deadline).map_err(harm)?;
                subject.end_as(untraced, deadline).map_err(harm)?;
                return Ok(Outcome::Refused(why));
            }
        }
    }
    let during = bystander.changed();
    // One that comes while the breakpoints are there.
    let late = Bystander::start(&setup.bystander, &files, deadline)?;
    cell.strangers = Some(during.max(late.all().saturating_sub(bystander.before)));
    let kinds: &[&str] = if condition == Condition::Storm {
        &[ROUND, STORM]
    } else {
        &[ROUND]
    };
    let rounds = (SPANS.div_ceil(agents[0].probed(&untraced.log).max(1))).max(2);
    for number in 0..rounds {
        if condition == Condition::Stopped && number == 1 {
            agents[0].signal(libc::SIGSTOP);
        }
        let kind = kinds[(number as usize).min(kinds.len() - 1)];
        subject
            .round(kind, untraced, &mut log, deadline)
            .map_err(harm)?;
        if condition == Condition::Stopped && number == 1 {
            std::thread::sleep(Duration::from_millis(500));
            agents[0].signal(libc::SIGCONT);
        }
    }
    if condition == Condition::Attach {
        stranger(setup, built, untraced, deadline)?;
    }
    if let Some(beside) = beside {
        beside.leave(&pids, deadline, &mut cell.notes)?;
        subject
            .round(ROUND, untraced, &mut log, deadline)
            .map_err(harm)?;
    }
    let mut verdicts = Vec::new();
    if condition == Condition::Killed {
        for mut agent in agents {
            let spans = agent.until_printed(log.total(), deadline.or_after(5.0));
            verdicts.push(spans.compare(&log, &pids, functions, true));
            subject.begin(ROUND);
            agent.kill(deadline);
            subject
                .finish(ROUND, untraced, &mut log, deadline)
                .map_err(harm)?;
        }
        subject.restored(deadline).map_err(harm)?;
    } else {
        for agent in agents {
            let spans = agent.stop(deadline)?;
            if !spans.ending.ends_with("code 0") {
                cell.notes
                    .push(format!("the agent ended with {}", spans.ending));
            }
            verdicts.push(spans.compare(&log, &pids, functions, true));
        }
    }
    subject.restored(deadline).map_err(harm)?;
    let restored = deadline.or_after(5.0).until(|| bystander.changed() == 0);
    if !restored && !super::memory::another_agent() {
        return Err(harm("a bystander's code was not restored".to_owned()));
    }
    subject
        .round(ROUND, untraced, &mut log, deadline)
        .map_err(harm)?;
    subject.end_as(untraced, deadline).map_err(harm)?;
    // The worse of two agents counts.
    verdicts.sort_by_key(|verdict| verdict.equal);
    Ok(Outcome::Lived(verdicts.swap_remove(0)))
}

/// Another instance is started, works and ends while the first is traced.
fn stranger(setup: &Setup, built: &Built, untraced: &Untraced, deadline: Deadline) -> Judged<()> {
    let go = || -> Result<()> {
        let mut stranger =
            Subject::start(&built.stranger, &setup.folder.join("stranger"), deadline)?;
        stranger.round(ROUND, untraced, &mut Log::default(), deadline)?;
        stranger.end_as(untraced, deadline)
    };
    go().map_err(|text| harm(format!("a second instance that nobody named: {text}")))
}

/// Another tool on the same process.
enum Beside {
    Debugger(Program),
    Tracer(Program),
    Bpftrace(Program),
}

fn beside(
    condition: Condition,
    built: &Built,
    subject: &Subject,
    deadline: Deadline,
) -> Judged<Option<Beside>> {
    // The one that works: a server names its worker last.
    let pid = *subject.pids.last().ok_or_else(|| "no process".to_owned())?;
    let text = pid.to_string();
    let beside = match condition {
        Condition::Gdb => {
            let mut command = Command::new("gdb");
            command.args([
                "-nx",
                "-batch",
                "-iex",
                "set auto-solib-add off",
                "-p",
                &text,
            ]);
            for line in [
                "set pagination off",
                "handle all nostop noprint pass",
                "echo attached\\n",
                "continue",
                "bt 3",
                "detach",
            ] {
                command.args(["-ex", line]);
            }
            let mut gdb = Program::start(&mut command)?;
            loop {
                match gdb.line(deadline) {
                    Some(line) if line.contains("attached") => break,
                    Some(_) => {}
                    None => return Err("gdb did not attach".to_owned().into()),
                }
            }
            // Interrupted before it goes on it stays, has to be killed, and leaves its own breakpoints.
            if !deadline.until(|| !stopped(pid)) {
                return Err("gdb did not go on".to_owned().into());
            }
            Beside::Debugger(gdb)
        }
        Condition::Strace => {
            let arguments = ["-f", "-qq", "-o", "/dev/null", "-p", &text];
            let strace = Program::start(Command::new("strace").args(arguments))?;
            if !deadline.until(|| traced(pid)) {
                return Err("strace did not attach".to_owned().into());
            }
            Beside::Tracer(strace)
        }
        Condition::Bpftrace => {
            let Some(script) = peers::script(built.target, subject, false)? else {
                return Ok(None);
            };
            let bpftrace = peers::start_bpftrace(&script, pid, deadline)?;
            Beside::Bpftrace(bpftrace)
        }
        _ => return Ok(None),
    };
    Ok(Some(beside))
}

/// Whether a debugger has stopped it.
fn stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    state.starts_with('t')
}

/// Whether something traces it by ptrace.
fn traced(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| {
        line.strip_prefix("TracerPid:")
            .is_some_and(|tracer| tracer.trim() != "0")
    })
}

impl Beside {
    /// It goes, as Ctrl-C makes it.
    fn leave(self, pids: &[u32], deadline: Deadline, notes: &mut Vec<String>) -> Judged<()> {
        let is_debugger = matches!(self, Self::Debugger(_));
        let (Self::Debugger(mut program) | Self::Tracer(mut program) | Self::Bpftrace(mut program)) =
            self;
        program.signal(libc::SIGINT);
        if program.wait(deadline.or_after(10.0)).is_none() {
            program.signal(libc::SIGKILL);
            program.wait(deadline.or_after(2.0));
            // A debugger that is killed leaves its own breakpoints, which nobody could tell from the agent's.
            let text = "the other tool had to be killed".to_owned();
            if is_debugger {
                return Err(text.into());
            }
            notes.push(text);
        }
        drop(program);
        if deadline
            .or_after(5.0)
            .until(|| pids.iter().all(|&pid| !traced(pid)))
        {
            Ok(())
        } else {
            Err("the other tool does not let the target go"
                .to_owned()
                .into())
        }
    }
}

/// "Detach": all targets at once under one agent, which comes and goes while they work. Attaching costs seconds of
/// the kernel's verifier each time, whatever the number of targets.
pub(super) fn detach(
    setup: &Setup,
    all: &[(&Built, &Untraced)],
    mut progress: impl FnMut(usize),
) -> Vec<Cell> {
    let cells = wave(setup, all, &mut progress);
    super::process::kill_all();
    cells
}

struct Member<'a> {
    subject: Option<Subject>,
    built: &'a Built,
    untraced: &'a Untraced,
    log: Log,
    outcome: Option<Outcome>,
}

impl Member<'_> {
    fn try_to<T>(
        &mut self,
        what: &str,
        mut action: impl FnMut(&mut Subject, &Untraced, &mut Log) -> Result<T>,
    ) {
        if let Some(subject) = &mut self.subject
            && let Err(text) = action(subject, self.untraced, &mut self.log)
        {
            self.outcome = Some(Outcome::Harmed(format!("{text} ({what})")));
            self.subject = None;
        }
    }
}

fn wave(setup: &Setup, all: &[(&Built, &Untraced)], progress: &mut impl FnMut(usize)) -> Vec<Cell> {
    let start = Deadline::after(setup.seconds + 5.0 * all.len() as f64);
    let mut members: Vec<Member> = all
        .iter()
        .map(|&(built, untraced)| {
            let folder = setup.folder.join(built.target.key);
            let (subject, outcome) = match Subject::start(&built.launch, &folder, start) {
                Ok(subject) => (Some(subject), None),
                Err(text) => (None, Some(Outcome::Failed(text))),
            };
            Member {
                subject,
                built,
                untraced,
                log: Log::default(),
                outcome,
            }
        })
        .collect();
    let mut done = 0;
    let mut trouble = None;
    let enough = Deadline::after(setup.detach_seconds);
    for cycle in 1..=setup.detaches {
        if enough.left().is_zero() {
            break;
        }
        let deadline = Deadline::after(setup.seconds + 2.0 * all.len() as f64);
        let what = format!("cycle {cycle}");
        let wanted = wanted(&members);
        if wanted.is_empty() {
            break;
        }
        let cycled = work_while(&mut members, &what, deadline, || {
            let agent = attach_all(setup, &wanted, deadline)?;
            std::thread::sleep(Duration::from_millis(200));
            agent.stop(deadline).map(drop)
        });
        if let Err(text) = cycled {
            trouble = Some(text);
            break;
        }
        for member in &mut members {
            member.try_to(&what, |subject, _, _| subject.restored(deadline));
        }
        done = cycle;
        progress(cycle);
    }
    // The last time, everything is counted.
    let deadline = Deadline::after(setup.seconds + 5.0 * all.len() as f64);
    let last = wanted(&members);
    let counted = match &trouble {
        Some(text) => Err(text.clone()),
        None if last.is_empty() => Err("no target was left".to_owned()),
        None => attach_all(setup, &last, deadline),
    };
    let spans = match counted {
        Ok(agent) => {
            for member in &mut members {
                member.log = Log::default();
                for _ in 0..SPANS
                    .div_ceil(agent.probed(&member.untraced.log).max(1))
                    .max(2)
                {
                    member.try_to("at the end", |subject, untraced, log| {
                        subject.round(ROUND, untraced, log, deadline)
                    });
                }
            }
            agent.stop(deadline)
        }
        Err(text) => Err(text),
    };
    members
        .into_iter()
        .map(|mut member| {
            let mut verdict = None;
            if let Some(subject) = &member.subject {
                let functions = member.built.target.functions;
                verdict = spans
                    .as_ref()
                    .ok()
                    .map(|spans| spans.compare(&member.log, &subject.pids, functions, false));
            }
            member.try_to("at the end", |subject, _, _| subject.restored(deadline));
            let untraced = member.untraced;
            if let Some(subject) = member.subject.take()
                && let Err(text) = subject.end_as(untraced, deadline)
            {
                member.outcome = Some(Outcome::Harmed(text));
            }
            let outcome = member.outcome.unwrap_or_else(|| match (verdict, &trouble) {
                (Some(verdict), None) => Outcome::Lived(verdict),
                (_, Some(text)) => Outcome::Failed(text.clone()),
                (None, None) => Outcome::Failed(spans.as_ref().err().cloned().unwrap_or_default()),
            });
            Cell {
                outcome,
                strangers: None,
                notes: vec![format!("{done} times of {}", setup.detaches)],
            }
        })
        .collect()
}

/// The processes and functions of all that live.
fn wanted(members: &[Member]) -> Vec<(Vec<u32>, &'static [&'static str])> {
    let live = members.iter().filter_map(|member| {
        let subject = member.subject.as_ref()?;
        Some((subject.pids.clone(), member.built.target.functions))
    });
    live.collect()
}

/// One agent on all of them.
fn attach_all(
    setup: &Setup,
    wanted: &[(Vec<u32>, &'static [&'static str])],
    deadline: Deadline,
) -> Result<Agent> {
    let wanted: Vec<Wanted> = wanted
        .iter()
        .map(|(pids, functions)| Wanted { pids, functions })
        .collect();
    match agent::start(&setup.agent, &wanted, deadline)? {
        Start::Tracing(agent) => Ok(agent),
        Start::Refused(why) => Err(format!("the agent refused: {why}")),
    }
}

/// Every target does rounds while something is done.
fn work_while(
    members: &mut [Member],
    what: &str,
    deadline: Deadline,
    action: impl FnOnce() -> Result<()> + Send,
) -> Result<()> {
    std::thread::scope(|scope| {
        let doing = scope.spawn(action);
        while !doing.is_finished() {
            for member in &mut *members {
                member.try_to(what, |subject, untraced, log| {
                    subject.round(ROUND, untraced, log, deadline)
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        doing
            .join()
            .unwrap_or_else(|_| Err("the matrix itself panicked".to_owned()))
    })
}
