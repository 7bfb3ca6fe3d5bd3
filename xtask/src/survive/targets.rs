//! The targets: how each is made and started, and which of its functions are traced.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::go_toolchain;
use crate::shell::{Result, need, output, root, run};

/// A row of the matrix.
pub(super) struct Target {
    /// What `--only` calls it.
    pub key: &'static str,
    pub title: &'static str,
    pub functions: &'static [&'static str],
    /// The library that has them, if it is not the program.
    pub library: Option<&'static str>,
    made: Made,
}

enum Made {
    /// Compiler, source, flags, variables at the start.
    Compiled(
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static [(&'static str, &'static str)],
    ),
    Go(&'static [&'static str]),
    Driver(&'static str),
    PostgreSql,
    Greenlets,
    Node(&'static [&'static str]),
    Java,
}

const CALLS: &[&str] = &["leaf", "middle", "top", "deep", "jump"];
const SHOP: &[&str] = &["shop::work", "shop::thrower", "shop::pass"];
const GO: &[&str] = &["main.Work", "main.Fail", "main.Grow"];
const NODE: &[&str] = &[
    "node::contextify::ContextifyScript::New",
    "node::contextify::ContextifyScript::RunInContext",
];
const MOVES: &[&str] = &["work", "other"];

const fn row(
    key: &'static str,
    title: &'static str,
    functions: &'static [&'static str],
    made: Made,
) -> Target {
    Target {
        key,
        title,
        functions,
        library: None,
        made,
    }
}

const fn c(
    key: &'static str,
    title: &'static str,
    functions: &'static [&'static str],
    source: &'static str,
) -> Target {
    row(
        key,
        title,
        functions,
        Made::Compiled("gcc", source, &["-O2", "-g"], &[]),
    )
}

/// All rows, in the order of the table.
pub(super) const ALL: &[Target] = &[
    row(
        "postgresql",
        "PostgreSQL",
        &["PortalRun", "pg_parse_query"],
        Made::PostgreSql,
    ),
    row(
        "redis",
        "Redis",
        &["processCommand", "setCommand", "getCommand", "evalCommand"],
        Made::Driver("redis_driver.py"),
    ),
    row(
        "nginx",
        "nginx",
        &["ngx_http_process_request", "ngx_http_send_header"],
        Made::Driver("nginx_driver.py"),
    ),
    row(
        "cpython",
        "CPython with greenlets",
        &["PyObject_Str"],
        Made::Greenlets,
    ),
    row("node", "Node", NODE, Made::Node(&[])),
    Target {
        library: Some("libjvm.so"),
        ..row("jvm", "OpenJDK", &["JVM_FillInStackTrace"], Made::Java)
    },
    row("go", "Go with cgo", GO, Made::Go(&[])),
    row(
        "go-stripped",
        "Go with cgo, stripped",
        GO,
        Made::Go(&["-ldflags", "-s -w"]),
    ),
    row(
        "rust",
        "Rust with panics",
        &["panics::leaf", "panics::panics", "panics::outer"],
        Made::Compiled(
            "rustc",
            "panics.rs",
            &["--edition=2024", "-g", "-O", "-Cforce-frame-pointers=yes"],
            &[],
        ),
    ),
    row(
        "cpp",
        "C++ with exceptions and coroutines",
        SHOP,
        Made::Compiled("g++", "throws.cpp", &["-O2", "-g", "-std=c++20"], &[]),
    ),
    c("fibers", "fibers (ucontext)", &["work", "step"], "fibers.c"),
    c(
        "jit",
        "stack switches in code made at run time",
        &["work", "plain"],
        "jit.c",
    ),
    c(
        "moves",
        "moves its text to anonymous memory",
        MOVES,
        "moves.c",
    ),
    row(
        "moved",
        "the same, before the agent comes",
        MOVES,
        Made::Compiled("gcc", "moves.c", &["-O2", "-g"], &[("MOVE", "start")]),
    ),
    row(
        "node-huge",
        "node --use-largepages=on",
        NODE,
        Made::Node(&["--use-largepages=on"]),
    ),
    c(
        "signals",
        "signal storms",
        &["work", "touch", "on_raise", "tick"],
        "signals.c",
    ),
    row(
        "asan",
        "C++ with AddressSanitizer",
        SHOP,
        Made::Compiled(
            "g++",
            "throws.cpp",
            &["-O2", "-g", "-std=c++20", "-fsanitize=address"],
            &[],
        ),
    ),
    row(
        "musl",
        "C on musl",
        CALLS,
        Made::Compiled("musl-gcc", "calls.c", &["-O2", "-g"], &[]),
    ),
    row(
        "static-pie",
        "C, static PIE",
        CALLS,
        Made::Compiled("gcc", "calls.c", &["-O2", "-g", "-static-pie"], &[]),
    ),
    row(
        "nop5",
        "C that begins its functions with 5-byte nops",
        CALLS,
        Made::Compiled(
            "gcc",
            "calls.c",
            &[
                "-O2",
                "-g",
                "-pg",
                "-mfentry",
                "-mnop-mcount",
                "-fno-pie",
                "-no-pie",
            ],
            &[],
        ),
    ),
    c(
        "caller",
        "C that looks at its return address",
        &["work", "checked"],
        "caller.c",
    ),
];

/// How a target is started.
#[derive(Clone)]
pub(super) struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// Stands for a fresh folder among the arguments.
const FOLDER: &str = "{folder}";

impl Launch {
    fn new(program: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            variables: Vec::new(),
        }
    }

    /// The command; `folder` is made afresh.
    pub(super) fn command(&self, folder: &Path) -> Result<Command> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut command = Command::new(&self.program);
        for argument in &self.arguments {
            if argument == FOLDER {
                command.arg(folder);
            } else {
                command.arg(argument);
            }
        }
        command
            .current_dir(folder)
            .envs(self.variables.iter().cloned());
        Ok(command)
    }
}

/// A target that is ready to be started.
pub(super) struct Built {
    pub target: &'static Target,
    pub launch: Launch,
    /// A second one, that nobody names.
    pub stranger: Launch,
}

/// The folder of the sources.
fn sources() -> PathBuf {
    root().join("xtask/survive-targets")
}

/// The interpreter of Debian: another may come from a version manager.
const PYTHON: &str = "/usr/bin/python3";

/// Installs what these targets need; the tools beside them are the caller's.
pub(super) fn install(targets: &[&'static Target]) -> Result<()> {
    let mut programs = vec![
        ("gcc", "gcc"),
        ("g++", "g++"),
        ("nm", "binutils"),
        (PYTHON, "python3"),
    ];
    for target in targets {
        match target.made {
            Made::Compiled("musl-gcc", ..) => programs.push(("musl-gcc", "musl-tools")),
            Made::Compiled("g++", _, flags, _) if flags.contains(&"-fsanitize=address") => {
                programs.push(("/usr/lib/x86_64-linux-gnu/libasan.so.8", "libasan8"));
            }
            Made::PostgreSql => programs.push(("/usr/lib/postgresql", "postgresql")),
            Made::Driver("redis_driver.py") => programs.push(("redis-server", "redis-server")),
            Made::Driver("nginx_driver.py") => programs.push(("nginx", "nginx-light")),
            Made::Node(_) => programs.push(("node", "nodejs")),
            Made::Java => programs.push(("javac", "default-jdk-headless")),
            Made::Greenlets | Made::Go(_) if !Path::new("/usr/share/doc/python3-venv").exists() => {
                programs.push(("/usr/share/doc/python3-venv", "python3-venv"));
            }
            _ => {}
        }
    }
    need(&programs)
}

/// Builds a target; what is made is kept in `folder`, which every user may enter.
pub(super) fn build(target: &'static Target, folder: &Path) -> Result<Built> {
    let out = folder.join(target.key);
    let text = |path: &Path| path.display().to_string();
    let source = |name: &str| text(&sources().join(name));
    let mut launch = Launch::new(&out, &[]);
    let mut stranger = None;
    match target.made {
        Made::Compiled(compiler, file, flags, variables) => {
            let mut command = Command::new(compiler);
            command.args(flags).arg("-o").arg(&out).arg(source(file));
            if compiler != "rustc" {
                command.arg("-pthread");
            }
            run(&mut command)?;
            launch.variables = variables
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
        }
        Made::Go(flags) => {
            let go = go_toolchain::toolchain(folder, go_toolchain::GO_VERSIONS[0]);
            run(Command::new(go.join("bin/go"))
                .current_dir(sources().join("go"))
                .env("GOROOT", &go)
                .env("GOCACHE", folder.join("go-cache"))
                .env("GOPATH", folder.join("go-path"))
                .env("GOFLAGS", "-buildvcs=false")
                .env("GOTOOLCHAIN", "local")
                .env("CGO_ENABLED", "1")
                .args(["build", "-o"])
                .arg(&out)
                .args(flags)
                .arg("."))?;
        }
        Made::Driver(file) => launch = Launch::new(PYTHON, &[&source(file), FOLDER]),
        Made::PostgreSql => {
            let binaries = fs::read_dir("/usr/lib/postgresql")
                .map_err(|error| format!("/usr/lib/postgresql: {error}"))?
                .flatten()
                .next()
                .ok_or("no PostgreSQL in /usr/lib/postgresql")?
                .path()
                .join("bin");
            let data = out.join("data");
            let _ = fs::remove_dir_all(&out);
            fs::create_dir_all(&out).map_err(|error| error.to_string())?;
            run(Command::new("chown").arg("postgres").arg(&out))?;
            output(
                Command::new("setpriv")
                    .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
                    .arg(binaries.join("initdb"))
                    .args(["--no-sync", "--auth=trust", "-D"])
                    .arg(&data)
                    .current_dir(&out),
            )?;
            launch = Launch::new(
                PYTHON,
                &[
                    &source("postgres_driver.py"),
                    FOLDER,
                    &text(&binaries),
                    &text(&data),
                ],
            );
        }
        Made::Greenlets => {
            let python = out.join("bin/python3");
            if !out.join("ready").exists() {
                run(Command::new(PYTHON)
                    .args(["-m", "venv", "--clear"])
                    .arg(&out))?;
                run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "greenlet"]))?;
                fs::write(out.join("ready"), "").map_err(|error| error.to_string())?;
            }
            launch = Launch::new(python, &[&source("greenlets.py")]);
        }
        Made::Node(flags) => {
            let file = source("node.js");
            let mut arguments = flags.to_vec();
            arguments.push(&file);
            launch = Launch::new("node", &arguments);
            // Whoever starts it so moves its text while the file is probed for another.
            stranger = Some(Launch::new("node", &["--use-largepages=on", &file]));
        }
        Made::Java => {
            run(Command::new("javac")
                .arg("-d")
                .arg(&out)
                .arg(source("Target.java")))?;
            // Else hot code throws null pointer exceptions without their stack.
            let flag = "-XX:-OmitStackTraceInFastThrow";
            launch = Launch::new("java", &[flag, "-cp", &text(&out), "Target"]);
        }
    }
    Ok(Built {
        target,
        stranger: stranger.unwrap_or_else(|| launch.clone()),
        launch,
    })
}
