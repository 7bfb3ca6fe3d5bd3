//! Running a compiled target and the agent on it, and comparing what both say.
#![allow(dead_code, unused_imports)] // each test binary uses its own part

pub mod futures;
pub mod golang;
pub mod inlined;
pub mod processes;
pub mod service;
pub mod spawned;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::Value;

/// Return probes on targets that are known to do nothing that these could harm.
pub const UNSAFE: &[&str] = &[
    "--return-probe",
    "uretprobe",
    "--allow-unsafe-return-probes",
];

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Probes for everything that `throws.cpp` writes down.
pub const THROWS: &[&str] = &[
    "--probe",
    "test:shop::thrower",
    "--probe",
    "test:shop::deep",
    "--probe",
    "test:shop::catcher",
    "--probe",
    "test:shop::from_destructor",
    "--probe",
    "test:shop::bare_*",
    "--probe",
    "test:shop::translates",
    "--probe",
    "test:shop::keeps",
    "--probe",
    "test:shop::nests",
    "--probe",
    "test:shop::busy_*",
    "--probe",
    "test:shop::inner_thrower",
];

/// Compiles `tests/targets/SOURCE`; C by its ending, C++ otherwise.
pub fn compile(source: &str, flags: &[&str]) -> PathBuf {
    compile_with(source, flags, &[])
}

/// Empty until it is compiled.
type Compiled = Arc<OnceLock<PathBuf>>;

/// What was compiled, by its command.
static COMPILED: Mutex<BTreeMap<Vec<String>, Compiled>> = Mutex::new(BTreeMap::new());

/// The same, with arguments that follow the source (libraries). Compiled once, and a file of its own each time: probes
/// are set in files.
pub fn compile_with(source: &str, flags: &[&str], after: &[&str]) -> PathBuf {
    // Debug information may lie beside a program, by its name; on another kernel all is compiled already.
    if flags.contains(&"-gsplit-dwarf") || std::env::var_os("TERACRON_PREBUILT").is_some() {
        return compile_now(source, flags, after);
    }
    let command: Vec<String> = [&[source], flags, after]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let once = lock(&COMPILED).entry(command).or_default().clone();
    let compiled = once.get_or_init(|| compile_now(source, flags, after));
    let own = new_file(source);
    copy(compiled, &own);
    own
}

/// Copies a program, by another process: one that is open for writing can't be run, and what other tests start inherits
/// what we have open.
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let mut command = Command::new("cp");
    let copied = command.arg(from.as_ref()).arg(to.as_ref()).status();
    assert!(copied.unwrap().success());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_file(source: &str) -> PathBuf {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let stem = Path::new(source).file_stem().unwrap().to_str().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.join(format!("{stem}-{}-{number}", std::process::id()))
}

fn compile_now(source: &str, flags: &[&str], after: &[&str]) -> PathBuf {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets");
    // On another kernel there is no compiler: the targets come from a run that had one.
    let prebuilt = std::env::var_os("TERACRON_PREBUILT").map(|folder| {
        let key: String = std::iter::once(&source)
            .chain(flags)
            .flat_map(|word| word.chars())
            .filter(|character| character.is_alphanumeric())
            .collect();
        PathBuf::from(folder).join(key)
    });
    if let Some(path) = &prebuilt
        && path.exists()
    {
        return path.clone();
    }
    let out = new_file(source);
    let is_rust = source.ends_with(".rs");
    // `clang` as the first flag is the other compiler.
    let by_clang = flags.first() == Some(&"clang");
    let flags = &flags[usize::from(by_clang)..];
    let compiler = match () {
        () if by_clang && source.ends_with(".c") => "clang",
        () if by_clang => "clang++",
        () if is_rust => "rustc",
        () if source.ends_with(".c") => "gcc",
        () => "g++",
    };
    let threads: &[&str] = if is_rust {
        &["--edition=2024"]
    } else {
        &["-pthread"]
    };
    let output = Command::new(compiler)
        .current_dir(&targets)
        .args(flags)
        .arg("-o")
        .arg(&out)
        .arg(source)
        .args(after)
        .args(threads)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} is needed: {error}"));
    assert!(
        output.status.success(),
        "{compiler} {flags:?} {source}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    if let Some(path) = prebuilt {
        std::fs::copy(&out, path).unwrap();
    }
    out
}

/// A running target.
pub struct Target {
    pub child: Child,
    pub pid: u32,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Target {
    /// Starts a target and waits until it is ready.
    pub fn start(program: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args);
        Self::start_command(command)
    }

    pub fn start_command(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let pid = line
            .strip_prefix("ready ")
            .unwrap_or_else(|| panic!("the target said {line:?}"))
            .trim()
            .parse()
            .unwrap();
        Self {
            child,
            pid,
            stdin,
            stdout,
        }
    }

    /// Tells it to go on.
    pub fn go(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            stdin.write_all(b"go\n").unwrap();
            stdin.flush().unwrap();
        }
    }

    /// Tells it a line.
    pub fn say(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            writeln!(stdin, "{line}").unwrap();
            stdin.flush().unwrap();
        }
    }

    /// Reads one line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Reads its log up to "done".
    pub fn log(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).unwrap();
            let line = line.trim_end().to_owned();
            if read == 0 || line == "done" {
                return lines;
            }
            lines.push(line);
        }
    }

    /// Waits until it prints this line.
    pub fn expect(&mut self, wanted: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), wanted);
    }

    /// Lets it end.
    pub fn finish(mut self) -> std::process::ExitStatus {
        drop(self.stdin.take());
        self.child.wait().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running agent.
pub struct Agent {
    pub child: Child,
    stderr: BufReader<ChildStderr>,
    /// Reads what it prints as it comes: an agent whose reader sleeps would lose spans.
    stdout: std::thread::JoinHandle<String>,
    /// What it said until it was ready.
    pub said: String,
}

pub fn agent_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_teracron-agent"));
    command.args(args);
    command
}

/// Starts an agent and waits until it has said something; answers what it said by then.
// The child is waited for by the caller; a test that fails before leaves it to its own end.
#[allow(clippy::zombie_processes)]
pub fn spawn_until(mut command: Command, words: &str) -> (Child, BufReader<ChildStderr>, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(words) {
        if stderr.read_line(&mut said).unwrap() == 0 {
            panic!(
                "the agent ended before it was ready ({:?}): {said}",
                child.wait()
            );
        }
    }
    (child, stderr, said)
}

impl Agent {
    /// Starts the agent with JSON output and waits until every probe is in place.
    pub fn start(pid: u32, args: &[&str]) -> Self {
        let pid = pid.to_string();
        let mut all = vec!["--output", "json", "--pid", &pid];
        all.extend_from_slice(args);
        Self::start_with(&all)
    }

    pub fn start_with(args: &[&str]) -> Self {
        let (mut child, stderr, said) = spawn_until(agent_command(args), "; Ctrl-C ends");
        let stdout = read_all(child.stdout.take().unwrap());
        Self {
            child,
            stderr,
            stdout,
            said,
        }
    }

    /// Starts the agent and stops it as soon as the probes are in place.
    pub fn start_paused(pid: u32, args: &[&str]) -> Self {
        let agent = Self::start(pid, args);
        agent.signal(libc::SIGSTOP);
        agent
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.signal(libc::SIGCONT);
    }

    /// Asks it to read its settings again.
    pub fn hang_up(&self) {
        self.signal(libc::SIGHUP);
    }

    /// Reads what it says until a line has these words; answers what it said since the last time.
    pub fn hear(&mut self, words: &str) -> String {
        let mut heard = String::new();
        loop {
            let before = heard.len();
            assert_ne!(
                self.stderr.read_line(&mut heard).unwrap(),
                0,
                "the agent ended and never said {words}: {heard}"
            );
            if heard[before..].contains(words) {
                self.said.push_str(&heard);
                return heard;
            }
        }
    }

    /// Asks it how it is.
    pub fn status(&self, run_dir: &Path) -> Value {
        let pid = self.child.id().to_string();
        let output = agent_command(&["status", "--json", "--agent", &pid, "--run-dir"])
            .arg(run_dir)
            .output()
            .unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&answer)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The process that delivers for it.
    pub fn delivering(&self, run_dir: &Path) -> u32 {
        let status = self.status(run_dir);
        let process = &status["wire"]["delivering"]["process"];
        process.as_u64().unwrap_or_else(|| panic!("{status}")) as u32
    }

    pub fn signal(&self, number: i32) {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.child.id() as i32, number) };
    }

    /// Asks it to stop, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(libc::SIGINT);
    }

    /// Waits for its end and answers what it printed.
    pub fn finish(self) -> Report {
        self.finish_with(0)
    }

    /// The same, where it ends with this exit code.
    pub fn finish_with(mut self, code: i32) -> Report {
        let errors = read_all(self.stderr);
        let stdout = self.stdout.join().unwrap();
        let status = self.child.wait().unwrap();
        let said = self.said + &errors.join().unwrap();
        assert_eq!(status.code(), Some(code), "the agent: {status}: {said}");
        Report::parse(&stdout, said)
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

/// A span as the agent printed it.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: Option<String>,
    pub workflow: String,
    pub operation: String,
    pub status: String,
    pub error_type: Option<String>,
    pub error_message: Option<String>,
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub started_at_ns: u64,
    pub started_at: u64,
    pub duration_ns: u64,
    pub metadata: Value,
    pub captured: Value,
}

/// All that an agent printed.
#[derive(Debug)]
pub struct Report {
    pub spans: Vec<Span>,
    pub losses: Vec<Value>,
    pub samples: Vec<Value>,
    pub inlined: Vec<Value>,
    pub deaths: Vec<Value>,
    /// What forked children did that nobody saw.
    pub unseen: Option<Value>,
    pub said: String,
}

impl Report {
    pub fn parse(stdout: &str, said: String) -> Self {
        let (mut spans, mut losses) = (Vec::new(), Vec::new());
        let (mut samples, mut inlined) = (Vec::new(), Vec::new());
        let mut deaths = Vec::new();
        let mut unseen = None;
        for line in stdout.lines() {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            match value["type"].as_str() {
                Some("span") => spans.push(span(&value)),
                Some("loss") => losses.push(value),
                Some("memory") => samples.push(value),
                Some("inlined") => inlined.push(value),
                Some("death") => deaths.push(value),
                Some("unseen") => unseen = Some(value),
                other => panic!("a line of type {other:?}"),
            }
        }
        Self {
            spans,
            losses,
            samples,
            inlined,
            deaths,
            unseen,
            said,
        }
    }

    /// By thread, the call trees in order of time.
    pub fn trees(&self) -> BTreeMap<u32, Vec<String>> {
        trees(&self.spans)
    }

    pub fn assert_nothing_lost(&self) {
        assert!(self.losses.is_empty(), "{:?}", self.losses);
        assert!(self.said.contains("none lost"), "{}", self.said);
    }
}

fn span(value: &Value) -> Span {
    let text = |key: &str| {
        value[key]
            .as_str()
            .unwrap_or_else(|| panic!("{key}: {value}"))
            .to_owned()
    };
    let maybe = |key: &str| value[key].as_str().map(str::to_owned);
    let number = |key: &str| {
        value[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {value}"))
    };
    let span = Span {
        trace: text("trace_id"),
        id: text("span_id"),
        parent: maybe("parent_span_id"),
        workflow: text("workflow"),
        operation: text("operation"),
        status: text("status"),
        error_type: maybe("error_type"),
        error_message: maybe("error_message"),
        pid: number("pid") as u32,
        tid: number("tid") as u32,
        comm: text("comm"),
        started_at_ns: number("started_at_ns"),
        started_at: number("started_at"),
        duration_ns: number("duration_ns"),
        metadata: value["metadata"].clone(),
        captured: value["captured_params"].clone(),
    };
    for id in [&span.trace, &span.id].into_iter().chain(&span.parent) {
        assert!(
            id.len() == 32
                && id
                    .bytes()
                    .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()),
            "{id}"
        );
        assert!(id.bytes().any(|b| b != b'0'), "a zero id");
    }
    assert_eq!(span.started_at, span.started_at_ns / 1_000_000);
    assert_eq!(
        value["duration_ms"].as_f64(),
        Some(span.duration_ns as f64 / 1e6)
    );
    span
}

/// `name status error (children…)`, by thread, in order of time; the spans' links are checked.
pub fn trees(spans: &[Span]) -> BTreeMap<u32, Vec<String>> {
    let mut children: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    let mut ids = std::collections::HashMap::new();
    for span in spans {
        assert!(
            ids.insert(span.id.as_str(), span).is_none(),
            "two spans with id {}",
            span.id
        );
    }
    let mut roots: Vec<&Span> = Vec::new();
    for span in spans {
        match &span.parent {
            Some(parent) => {
                let parent = ids
                    .get(parent.as_str())
                    .unwrap_or_else(|| panic!("the parent of {span:?} is missing"));
                assert_eq!(parent.trace, span.trace, "{span:?}");
                children.entry(&parent.id).or_default().push(span);
            }
            None => roots.push(span),
        }
    }
    let mut traces = std::collections::HashSet::new();
    for root in &roots {
        assert!(
            traces.insert(&root.trace),
            "two roots in trace {}",
            root.trace
        );
    }
    fn render(span: &Span, children: &BTreeMap<&str, Vec<&Span>>, out: &mut String) {
        out.push_str(&format!("({} {}", span.operation, span.status));
        if let Some(error) = &span.error_type {
            out.push_str(&format!(" {error}"));
        }
        if let Some(message) = &span.error_message {
            out.push_str(&format!("|{message}"));
        }
        let mut inner = children.get(span.id.as_str()).cloned().unwrap_or_default();
        inner.sort_by_key(|span| span.started_at_ns);
        for child in inner {
            render(child, children, out);
        }
        out.push(')');
    }
    roots.sort_by_key(|span| span.started_at_ns);
    let mut by_thread: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for root in roots {
        let mut text = String::new();
        render(root, &children, &mut text);
        by_thread.entry(root.tid).or_default().push(text);
    }
    by_thread
}

/// The same from a target's log.
pub fn log_trees(log: &[String]) -> BTreeMap<u32, Vec<String>> {
    struct Open {
        name: String,
        children: String,
    }
    let mut stacks: BTreeMap<u32, Vec<Open>> = BTreeMap::new();
    let mut done: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for line in log {
        let mut words = line.splitn(3, ' ');
        let what = words.next().unwrap();
        let thread: u32 = words.next().unwrap().parse().unwrap();
        let text = words.next().unwrap();
        let stack = stacks.entry(thread).or_default();
        match what {
            "B" => stack.push(Open {
                name: text.to_owned(),
                children: String::new(),
            }),
            "E" => {
                let open = stack
                    .pop()
                    .unwrap_or_else(|| panic!("an end without a begin: {line}"));
                let rendered = format!("({} {text}{})", open.name, open.children);
                match stack.last_mut() {
                    Some(parent) => parent.children.push_str(&rendered),
                    None => done.entry(thread).or_default().push(rendered),
                }
            }
            // A whole tree, where begins and ends do not nest.
            "T" => done.entry(thread).or_default().push(text.to_owned()),
            other => panic!("{other}"),
        }
    }
    done
}

/// Compares call trees, and shows the first difference in a way that can be read.
pub fn assert_same(
    what: &str,
    traced: &BTreeMap<u32, Vec<String>>,
    logged: &BTreeMap<u32, Vec<String>>,
) {
    for (thread, wanted) in logged {
        let got = traced.get(thread).cloned().unwrap_or_default();
        for (place, (a, b)) in wanted.iter().zip(&got).enumerate() {
            assert_eq!(
                b, a,
                "{what}: thread {thread}, tree {place} (left: traced, right: logged)"
            );
        }
        assert_eq!(
            got.len(),
            wanted.len(),
            "{what}: number of trees of thread {thread}; next: {:?}",
            got.get(wanted.len())
        );
    }
    for thread in traced.keys() {
        assert!(
            logged.contains_key(thread),
            "{what}: unexpected thread {thread}: {:?}",
            traced[thread].first()
        );
    }
}

/// Traces a target from "ready" to its end and compares.
pub fn trace_and_compare(what: &str, program: &Path, args: &[&str], agent_args: &[&str]) -> Report {
    let mut target = Target::start(program, args);
    let agent = Agent::start(target.pid, agent_args);
    target.go();
    let log = target.log();
    let status = target.finish();
    assert!(status.success(), "{what}: the target: {status}");
    let report = agent.finish();
    assert!(!log.is_empty(), "{what}: no log");
    report.assert_nothing_lost();
    assert_same(what, &report.trees(), &log_trees(&log));
    report.assert_nothing_lost();
    report
}

/// Lets a target make `count` calls while the agent sleeps: what was read and what was lost must
/// add up to what the kernel saw. Answers the calls lost because the ring buffer was full.
pub fn check_losses(flags: &[&str], count: u64) -> u64 {
    let program = compile("leaves.c", flags);
    let mut target = Target::start(&program, &["burst", &count.to_string()]);
    let mut agent = Agent::start_paused(target.pid, &["--probe", "a:fast"]);
    target.go();
    target.log();
    agent.resume();
    target.finish();
    let report = agent.finish();
    let last = report.losses.last().expect("losses are reported");
    let number = |key: &str| last[key].as_u64().unwrap();
    assert_eq!(number("entered"), count);
    assert_eq!(number("sent"), report.spans.len() as u64);
    assert_eq!(number("sent") + number("lost"), count);
    number("ring_full")
}

/// All executable memory of a process that is from a file, with its addresses.
pub fn code_of(pid: u32) -> Vec<(u64, Vec<u8>)> {
    use std::os::unix::fs::FileExt as _;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    std::fs::read_to_string(format!("/proc/{pid}/maps"))
        .unwrap()
        .lines()
        .filter(|line| line.contains(" r-xp ") && line.contains('/'))
        .map(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let start = u64::from_str_radix(start, 16).unwrap();
            let end = u64::from_str_radix(end, 16).unwrap();
            let mut bytes = vec![0; (end - start) as usize];
            memory.read_exact_at(&mut bytes, start).unwrap();
            (start, bytes)
        })
        .collect()
}

/// Bytes of code that differ between two looks at a process.
pub fn changed(before: &[(u64, Vec<u8>)], after: &[(u64, Vec<u8>)]) -> usize {
    assert_eq!(before.len(), after.len());
    let pairs = before.iter().zip(after);
    pairs
        .map(|((_, one), (_, other))| one.iter().zip(other).filter(|(a, b)| a != b).count())
        .sum()
}

/// Waits until a process has breakpoints in a library: what watches `longjmp`, unwinders and loading.
pub fn await_watchers(pid: u32, library: &str) {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps
        .lines()
        .find(|line| line.contains(" r-xp ") && line.contains(library))
        .unwrap();
    let mut words = line.split_whitespace();
    let start = words.next().unwrap().split('-').next().unwrap();
    let start = u64::from_str_radix(start, 16).unwrap();
    let offset = u64::from_str_radix(words.nth(1).unwrap(), 16).unwrap();
    let mut clean = std::fs::read(words.nth(2).unwrap()).unwrap();
    clean.drain(..offset as usize);
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut bytes = vec![0; clean.len().min(1 << 20)];
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        memory.read_exact_at(&mut bytes, start).unwrap();
        if bytes != clean[..bytes.len()] {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "no breakpoint in {library} of {pid}"
        );
        std::thread::yield_now();
    }
}
