//! Programs that nobody here wrote, as Debian builds them, driven by their own load tools: they work as
//! if nobody watched, and every call of a traced function is a span.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::*;

/// A server, killed at the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGINT) };
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Server {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} is needed: {error}"));
    Server(child)
}

fn output(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} is needed: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Waits until a server answers.
fn wait_for(port: u16) {
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("teracron-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn count(report: &Report, operation: &str) -> usize {
    report
        .spans
        .iter()
        .filter(|span| span.operation == operation)
        .count()
}

fn nothing_failed(report: &Report) {
    report.assert_nothing_lost();
    for span in &report.spans {
        assert_ne!(span.status, "failed", "{span:?}");
    }
}

#[test]
fn postgresql_under_pgbench() {
    let bin = std::fs::read_dir("/usr/lib/postgresql")
        .expect("postgresql is needed")
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("bin");
    let base = folder("postgresql");
    output(Command::new("chown").arg("postgres").arg(&base));
    let data = base.join("data");
    let id = |what: &str| -> u32 {
        output(Command::new("id").args([what, "postgres"]))
            .trim()
            .parse()
            .unwrap()
    };
    let (uid, gid) = (id("-u"), id("-g"));
    let port = free_port();
    let run = |program: &str| {
        let mut command = Command::new(bin.join(program));
        command.uid(uid).gid(gid).current_dir(&base);
        command
    };
    output(
        run("initdb")
            .args(["--no-sync", "--auth=trust", "-D"])
            .arg(&data),
    );
    let server = start(
        run("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-h", "127.0.0.1", "-k"])
            .arg(&base)
            .args(["-p", &port.to_string(), "-c", "autovacuum=off"]),
    );
    let until = Instant::now() + Duration::from_secs(60);
    while !Command::new(bin.join("pg_isready"))
        .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
        .status()
        .unwrap()
        .success()
    {
        assert!(Instant::now() < until, "PostgreSQL does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    let connect = ["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"];
    let bench = |arguments: &[&str]| {
        output(
            Command::new(bin.join("pgbench"))
                .args(connect)
                .args(arguments)
                .arg("postgres"),
        )
    };
    bench(&["-i", "-q", "-s", "1"]);
    let sum = || {
        output(Command::new(bin.join("psql")).args(connect).args([
            "-At",
            "-c",
            "select count(*), sum(bbalance) from pgbench_branches",
        ]))
    };
    let before = sum();
    // The back ends are forked after the agent was started on the postmaster, and their first calls count.
    let agent = Agent::start(
        server.0.id(),
        &[
            "--all-processes",
            "--probe",
            "pg:PortalRun(run_once=arg4:bool)",
            "--probe",
            "pg:standard_ExecutorRun",
        ],
    );
    let said = bench(&["-S", "-n", "-c", "4", "-t", "500"]);
    assert!(
        said.contains("number of transactions actually processed: 2000/2000"),
        "{said}"
    );
    assert!(said.contains("number of failed transactions: 0"), "{said}");
    assert_eq!(sum(), before);
    agent.interrupt();
    let report = agent.finish();
    nothing_failed(&report);
    // The statement above is one more, and pgbench asks for a thing or two before it begins.
    let ran = count(&report, "PortalRun");
    assert!((2001..=2005).contains(&ran), "{ran}");
    assert_eq!(count(&report, "standard_ExecutorRun"), ran);
    let by_id: std::collections::HashMap<&str, &Span> = report
        .spans
        .iter()
        .map(|span| (span.id.as_str(), span))
        .collect();
    for span in report
        .spans
        .iter()
        .filter(|span| span.operation == "standard_ExecutorRun")
    {
        assert_eq!(
            by_id[span.parent.as_deref().unwrap()].operation,
            "PortalRun"
        );
        assert!(span.comm.starts_with("postgres"), "{span:?}");
    }
    drop(server);
    let _ = std::fs::remove_dir_all(base);
}

#[test]
fn redis_under_redis_benchmark() {
    let port = free_port();
    let server = start(Command::new("redis-server").args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--daemonize",
        "no",
    ]));
    wait_for(port);
    let ask = |arguments: &[&str]| {
        output(
            Command::new("redis-cli")
                .args(["-p", &port.to_string()])
                .args(arguments),
        )
    };
    let agent = Agent::start(
        server.0.id(),
        &[
            "--probe",
            "redis:processCommand",
            "--probe",
            "redis:call(flags=arg2:i32)",
        ],
    );
    ask(&["config", "resetstat"]);
    output(Command::new("redis-benchmark").args([
        "-p",
        &port.to_string(),
        "-n",
        "5000",
        "-c",
        "20",
        "-t",
        "set,get,incr",
        "-q",
    ]));
    assert_eq!(ask(&["get", "counter:__rand_int__"]).trim(), "5000");
    let stats = ask(&["info", "stats"]);
    let processed: usize = stats
        .lines()
        .find_map(|line| line.trim().strip_prefix("total_commands_processed:"))
        .unwrap()
        .parse()
        .unwrap();
    agent.interrupt();
    let report = agent.finish();
    nothing_failed(&report);
    // The one that reset the count, and the one that asked for it.
    let calls = count(&report, "call");
    assert!(
        (processed..=processed + 2).contains(&calls),
        "{processed} {calls}"
    );
    assert!(count(&report, "processCommand") >= calls);
    drop(server);
}

#[test]
fn nginx_under_wrk() {
    let base = folder("nginx");
    let port = free_port();
    std::fs::write(base.join("index.html"), "hello from nginx\n").unwrap();
    let config = format!(
        "worker_processes 2; daemon off; master_process on; pid {0}/pid; error_log {0}/error.log; user root;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log {0}/access.log; client_body_temp_path {0}/a; proxy_temp_path {0}/b; fastcgi_temp_path {0}/c;\n\
         uwsgi_temp_path {0}/d; scgi_temp_path {0}/e;\n\
         server {{ listen 127.0.0.1:{port}; root {0}; }} }}\n",
        base.display()
    );
    std::fs::write(base.join("nginx.conf"), config).unwrap();
    let server = start(
        Command::new("nginx")
            .arg("-c")
            .arg(base.join("nginx.conf"))
            .arg("-p")
            .arg(&base),
    );
    wait_for(port);
    let workers: Vec<String> =
        output(Command::new("pgrep").args(["-P", &server.0.id().to_string()]))
            .lines()
            .map(str::to_owned)
            .collect();
    assert_eq!(workers.len(), 2);
    let agent = Agent::start_with(&[
        "--output",
        "json",
        "--pid",
        &workers[0],
        "--pid",
        &workers[1],
        "--probe",
        "nginx:ngx_http_process_request",
    ]);
    let url = format!("http://127.0.0.1:{port}/index.html");
    let said = output(Command::new("wrk").args(["-t2", "-c8", "-d2s", &url]));
    assert!(
        !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "{said}"
    );
    let mut page = String::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
        .unwrap();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.ends_with("hello from nginx\n"), "{page}");
    agent.interrupt();
    let report = agent.finish();
    nothing_failed(&report);
    let logged = std::fs::read_to_string(base.join("access.log"))
        .unwrap()
        .lines()
        .filter(|line| line.contains("\" 200 "))
        .count();
    let spans = count(&report, "ngx_http_process_request");
    // What wrk broke off at its end has begun and is not logged.
    assert!(
        spans >= logged && spans <= logged + 16,
        "{spans} spans, {logged} requests"
    );
    drop(server);
    let _ = std::fs::remove_dir_all(base);
}

#[test]
fn functions_of_cpython() {
    let script = "import os, sys\n\
        print('ready', os.getpid(), flush=True)\n\
        sys.stdin.readline()\n\
        class Odd:\n\
        \x20   def __str__(self): raise ValueError('odd')\n\
        total = 0\n\
        for i in range(1000):\n\
        \x20   total += len(str(i))\n\
        \x20   try: str(Odd())\n\
        \x20   except ValueError: total += 1\n\
        print(total, flush=True)\n\
        print('done', flush=True)\n\
        sys.stdin.read()\n";
    let python = std::fs::canonicalize("/usr/bin/python3").unwrap();
    let mut command = Command::new(&python);
    command.args(["-c", script]);
    let mut target = Target::start_command(command);
    // It ends by jumps to other functions, too: a return probe sees what these give back.
    let rule = ["--probe", "py:PyObject_Str fails null"];
    let pid = target.pid.to_string();
    let ret = [&["--pid", &pid, "--return-probe", "ret"], &rule[..]].concat();
    let refused = agent_command(&ret).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("it can end by a jump to another"), "{said}");
    let agent = Agent::start(target.pid, &[&rule[..], UNSAFE].concat());
    target.go();
    let log = target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    assert_eq!(log, ["3890"]);
    // `print` makes some, too.
    let calls = count(&report, "PyObject_Str");
    assert!((2000..2010).contains(&calls), "{calls}");
    let failed = report
        .spans
        .iter()
        .filter(|span| span.status == "failed")
        .count();
    assert_eq!(failed, 1000);
}

/// A client of a NATS server, in the protocol's own words.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut client = Self(BufReader::new(stream));
        assert!(client.line().starts_with("INFO "));
        client.say("CONNECT {\"verbose\":false}\r\n");
        client
    }

    fn say(&mut self, words: &str) {
        self.0.get_mut().write_all(words.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            // The server asks, too.
            if line != "PING\r\n" {
                return line.trim_end().to_owned();
            }
            self.say("PONG\r\n");
        }
    }

    /// Waits until the server has done everything so far.
    fn settle(&mut self) {
        self.say("PING\r\n");
        assert_eq!(self.line(), "PONG");
    }
}

/// Messages that a client publishes in the test.
const MESSAGES: usize = 5000;

#[test]
fn a_go_server_from_its_released_source() {
    for version in [golang::GO_VERSIONS[0], golang::GO_VERSIONS[3]] {
        let program = golang::build_released("github.com/nats-io/nats-server", version);
        let port = free_port();
        let server =
            start(Command::new(&program).args(["-a", "127.0.0.1", "-p", &port.to_string()]));
        wait_for(port);
        let mut reader = Client::connect(port);
        reader.say("SUB shop.> 1\r\n");
        reader.settle();
        let agent = Agent::start(
            server.0.id(),
            &[
                "--probe",
                "nats:*/server.(?client).processInboundClientMsg(msg)",
                "--probe",
                "nats:*/server.(?client).deliverMsg(msg)",
                "--probe",
                "nats:*/server.(?client).parse",
            ],
        );
        let publishers: Vec<_> = (0..4)
            .map(|number| {
                std::thread::spawn(move || {
                    let mut client = Client::connect(port);
                    for _ in 0..MESSAGES {
                        client.say(&format!("PUB shop.{number} 7\r\nmessage\r\n"));
                    }
                    client.settle();
                })
            })
            .collect();
        let mut delivered = [0usize; 4];
        for _ in 0..4 * MESSAGES {
            let head = reader.line();
            let number: usize = head
                .strip_prefix("MSG shop.")
                .and_then(|rest| rest.strip_suffix(" 1 7"))
                .unwrap_or_else(|| panic!("{head}"))
                .parse()
                .unwrap();
            assert_eq!(reader.line(), "message");
            delivered[number] += 1;
        }
        assert_eq!(delivered, [MESSAGES; 4]);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        // What is no word of the protocol is an error of the parser.
        let mut wrong = Client::connect(port);
        wrong.say("NONSENSE\r\n");
        assert_eq!(wrong.line(), "-ERR 'Unknown Protocol Operation'");
        agent.interrupt();
        let report = agent.finish();
        report.assert_nothing_lost();
        let of = |name: &str| -> Vec<&Span> {
            let spans = report.spans.iter();
            // The server has messages of its own, too, which are longer.
            spans
                .filter(|span| span.operation.ends_with(name) && span.captured["msg"] == 9)
                .collect()
        };
        for name in [".processInboundClientMsg", ".deliverMsg"] {
            let spans = of(name);
            assert_eq!(spans.len(), 4 * MESSAGES, "Go {version}: {name}");
            for span in spans {
                assert_eq!(span.status, "succeeded", "{span:?}");
                assert!(span.parent.is_some(), "{span:?}");
            }
        }
        let failed: Vec<_> = report
            .spans
            .iter()
            .filter(|span| span.status == "failed")
            .map(|span| (span.error_type.as_deref(), span.error_message.as_deref()))
            .collect();
        assert_eq!(failed.len(), 1, "Go {version}: {failed:?}");
        assert_eq!(failed[0].0, Some("*errors.errorString"), "{failed:?}");
        let text = failed[0].1.unwrap_or_default();
        assert!(
            text.starts_with("Client parser ERROR") && text.contains("NONSENSE"),
            "{failed:?}"
        );
        drop(server);
    }
}
