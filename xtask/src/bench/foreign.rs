//! What a traced call costs programs that nobody here wrote, under their own load tools: processor time of
//! the server per request, with and without the agent, in turn.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Agent, Row, spans_told};
use crate::go_toolchain;
use crate::shell::{Result, output, run};

/// Turns with and without the agent.
const TURNS: usize = 3;

/// A server, killed at the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = run(Command::new("kill").args(["-INT", &self.0.id().to_string()]));
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Result<Server> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(Server)
        .map_err(|error| format!("{command:?}: {error}"))
}

fn free_port() -> Result<u16> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

fn wait_for(port: u16) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > until {
            return Err(format!("nothing listens on {port}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Nanoseconds of processor time of processes, with what their children that have ended took.
fn processor_time(pids: &[u32]) -> f64 {
    let mut sum = 0.0;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let first = text.split(' ').next().and_then(|word| word.parse().ok());
            sum += first.unwrap_or(0.0);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let ticks = after.split(' ').skip(13).take(2);
        sum += ticks
            .filter_map(|word| word.parse::<f64>().ok())
            .sum::<f64>()
            * 1e7;
    }
    sum
}

/// A program under load.
struct Subject<'a> {
    name: &'static str,
    /// Whose processor time counts, and which are traced.
    pids: Vec<u32>,
    probe: &'static str,
    /// Makes requests; answers how many.
    load: &'a mut dyn FnMut() -> Result<f64>,
}

impl Subject<'_> {
    /// Nanoseconds per request untraced, and what a traced call adds.
    fn measure(self, agent: &Path) -> Result<Vec<Row>> {
        let mut pairs = Vec::new();
        (self.load)()?;
        for _ in 0..TURNS {
            let before = processor_time(&self.pids);
            let requests = (self.load)()?;
            let untraced = (processor_time(&self.pids) - before) / requests;
            let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
            let mut arguments = vec!["--probe", self.probe, "--output", "none"];
            for pid in &pids {
                arguments.extend(["--pid", pid]);
            }
            let tracer = Agent::start(agent, &arguments)?;
            // In its first second the agent has the kernel time the programs, which costs some itself.
            std::thread::sleep(Duration::from_millis(1500));
            let before = processor_time(&self.pids);
            let requests = (self.load)()?;
            let traced = processor_time(&self.pids) - before;
            let said = tracer.stop()?;
            let spans = spans_told(&said)
                .filter(|spans| *spans > 0.0)
                .ok_or_else(|| format!("{}: no spans: {said}", self.name))?;
            let calls_per_request = spans / requests;
            pairs.push((
                (traced / requests - untraced) / calls_per_request,
                untraced / calls_per_request,
            ));
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (cost, untraced) = pairs[TURNS / 2];
        Ok(vec![
            Row::one(format!("{}, untraced", self.name), "ns per call", untraced),
            Row::one(
                format!("{}, what a call adds", self.name),
                "ns per call",
                cost,
            ),
        ])
    }
}

/// The rows: what the server takes for each traced call, and what tracing adds to it.
pub(super) fn rows(agent: &Path, folder: &Path, seconds: f64) -> Result<Vec<Row>> {
    let scale = seconds.min(2.0);
    let mut rows = redis(agent, scale)?;
    rows.extend(nginx(agent, folder, scale)?);
    rows.extend(postgresql(agent, scale)?);
    rows.extend(nats(agent, folder, scale)?);
    rows.extend(cpython(agent, scale)?);
    Ok(rows)
}

fn redis(agent: &Path, scale: f64) -> Result<Vec<Row>> {
    let port = free_port()?.to_string();
    let server = start(Command::new("redis-server").args(["--port", &port, "--save", ""]))?;
    wait_for(port.parse().map_err(|_| "a port")?)?;
    let requests = 40_000.0 * scale;
    let mut load = || {
        output(Command::new("redis-benchmark").args([
            "-p",
            &port,
            "-q",
            "-t",
            "set",
            "-c",
            "8",
            "-n",
            &format!("{requests:.0}"),
        ]))?;
        Ok(requests)
    };
    Subject {
        name: "Redis under redis-benchmark: processCommand",
        pids: vec![server.0.id()],
        probe: "b:processCommand",
        load: &mut load,
    }
    .measure(agent)
}

fn nginx(agent: &Path, folder: &Path, scale: f64) -> Result<Vec<Row>> {
    let base = folder.join("nginx");
    fs::create_dir_all(&base).map_err(|error| error.to_string())?;
    let port = free_port()?;
    let shown = base.display();
    let config = format!(
        "worker_processes 1; daemon off; pid {shown}/pid; error_log {shown}/error.log; user root;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {shown}/a; proxy_temp_path {shown}/b;\n\
         fastcgi_temp_path {shown}/c; uwsgi_temp_path {shown}/d; scgi_temp_path {shown}/e;\n\
         server {{ listen 127.0.0.1:{port}; root {shown}; }} }}\n"
    );
    fs::write(base.join("nginx.conf"), config).map_err(|error| error.to_string())?;
    fs::write(base.join("index.html"), "hello\n").map_err(|error| error.to_string())?;
    let server = start(
        Command::new("nginx")
            .arg("-c")
            .arg(base.join("nginx.conf"))
            .arg("-p")
            .arg(&base),
    )?;
    wait_for(port)?;
    let workers = output(Command::new("pgrep").args(["-P", &server.0.id().to_string()]))?;
    let url = format!("http://127.0.0.1:{port}/index.html");
    let duration = format!("-d{}s", scale.ceil());
    let mut load = || {
        let said = output(Command::new("wrk").args(["-t1", "-c8", &duration, &url]))?;
        said.lines()
            .find_map(|line| line.trim().split(" requests in ").next()?.parse().ok())
            .ok_or_else(|| format!("wrk said: {said}"))
    };
    Subject {
        name: "nginx under wrk: ngx_http_process_request",
        pids: workers.lines().filter_map(|pid| pid.parse().ok()).collect(),
        probe: "b:ngx_http_process_request",
        load: &mut load,
    }
    .measure(agent)
}

fn postgresql(agent: &Path, scale: f64) -> Result<Vec<Row>> {
    let bin = fs::read_dir("/usr/lib/postgresql")
        .map_err(|error| format!("/usr/lib/postgresql: {error}"))?
        .flatten()
        .next()
        .ok_or("no PostgreSQL in /usr/lib/postgresql")?
        .path()
        .join("bin");
    let id = |what: &str| -> Result<u32> {
        let id = output(Command::new("id").args([what, "postgres"]))?;
        id.trim().parse().map_err(|_| "an id".to_owned())
    };
    let (uid, gid) = (id("-u")?, id("-g")?);
    // Below a folder that its user may enter.
    let base = std::env::temp_dir().join(format!("teracron-bench-{}", std::process::id()));
    fs::create_dir_all(&base).map_err(|error| error.to_string())?;
    run(Command::new("chown").arg("postgres").arg(&base))?;
    let data = base.join("data");
    let port = free_port()?;
    let command = |program: &str| {
        let mut command = Command::new(bin.join(program));
        command.uid(uid).gid(gid).current_dir(&base);
        command
    };
    output(
        command("initdb")
            .args(["--no-sync", "--auth=trust", "-D"])
            .arg(&data),
    )?;
    let server = start(
        command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-k"])
            .arg(&base)
            .args(["-c", "fsync=off", "-c", "synchronous_commit=off"]),
    )?;
    wait_for(port)?;
    let pgbench = |more: &[&str]| {
        let mut pgbench = command("pgbench");
        pgbench
            .args(["-h", "127.0.0.1", "-p", &port.to_string()])
            .args(more)
            .arg("postgres")
            .stderr(Stdio::null());
        pgbench
    };
    let until = Instant::now() + Duration::from_secs(30);
    while output(&mut pgbench(&["-i", "-q"])).is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
    }
    let transactions = 2_000.0 * scale;
    let mut load = || {
        output(&mut pgbench(&[
            "-n",
            "-c",
            "4",
            "-t",
            &format!("{transactions:.0}"),
        ]))?;
        Ok(4.0 * transactions)
    };
    let row = Subject {
        name: "PostgreSQL under pgbench: PortalRun",
        pids: vec![server.0.id()],
        probe: "b:PortalRun",
        load: &mut load,
    }
    .measure(agent);
    drop(server);
    let _ = fs::remove_dir_all(&base);
    row
}

fn nats(agent: &Path, folder: &Path, scale: f64) -> Result<Vec<Row>> {
    let program = folder.join("nats-server");
    go_toolchain::build_released(
        "github.com/nats-io/nats-server",
        folder,
        go_toolchain::GO_VERSIONS[0],
        &program,
    );
    let port = free_port()?;
    let server = start(Command::new(&program).args(["-a", "127.0.0.1", "-p", &port.to_string()]))?;
    wait_for(port)?;
    let messages = (40_000.0 * scale) as usize;
    let mut load = || {
        let publish = || -> std::io::Result<()> {
            let mut client = BufReader::new(TcpStream::connect(("127.0.0.1", port))?);
            let mut line = String::new();
            client.read_line(&mut line)?;
            client
                .get_mut()
                .write_all(b"CONNECT {\"verbose\":false}\r\n")?;
            for _ in 0..messages {
                client.get_mut().write_all(b"PUB shop 7\r\nmessage\r\n")?;
            }
            client.get_mut().write_all(b"PING\r\n")?;
            while !line.starts_with("PONG") {
                line.clear();
                client.read_line(&mut line)?;
            }
            Ok(())
        };
        publish().map_err(|error| format!("nats-server: {error}"))?;
        Ok(messages as f64)
    };
    Subject {
        name: "nats-server (Go): (*client).processInboundClientMsg",
        pids: vec![server.0.id()],
        probe: "b:*/server.(?client).processInboundClientMsg",
        load: &mut load,
    }
    .measure(agent)
}

fn cpython(agent: &Path, scale: f64) -> Result<Vec<Row>> {
    let calls = (100_000.0 * scale) as u64;
    let script = format!(
        "import sys\nfor line in sys.stdin:\n    for i in range({calls}): str(i)\n    print(flush=True)\n"
    );
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("python3: {error}"))?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let mut stdout = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let server = Server(child);
    let mut load = || {
        let mut line = String::new();
        writeln!(stdin)
            .and_then(|()| stdout.read_line(&mut line))
            .map_err(|error| format!("python3: {error}"))?;
        Ok(calls as f64)
    };
    Subject {
        name: "CPython in a loop: PyObject_Str",
        pids: vec![server.0.id()],
        probe: "b:PyObject_Str",
        load: &mut load,
    }
    .measure(agent)
}
