//! What people are told: names for ids, missing privileges as such, lines that fit a terminal. Needs root.

use std::{
    io::{BufRead as _, Read as _},
    process::{Command, Output, Stdio},
};

use crate::support::*;

fn told(output: &Output) -> (i32, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), said)
}

fn agent(args: &[&str]) -> (i32, String) {
    told(&agent_command(args).stdin(Stdio::null()).output().unwrap())
}

#[test]
fn a_name_instead_of_an_id_says_which_processes_have_it() {
    let program = compile("steady.c", &["-O2"]);
    let target = Target::start(&program, &[]);
    let name = program.file_name().unwrap().to_str().unwrap();
    for args in [
        &["--pid", name, "--probe", "a:outer"][..],
        &["symbols", "--pid", name],
        &["status", "--agent", name],
    ] {
        let (code, said) = agent(args);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(&target.pid.to_string()), "{said}");
        let (code, said) = agent(&[args[0], args[1], "no-such-name-here"]);
        assert!(code == 2 || args.len() > 3, "{said}");
    }
    let (code, said) = agent(&["--pid", "no-such-name-here", "--probe", "a:b"]);
    assert!(code == 2 && said.contains("pgrep -f"), "{said}");
}

/// The agent with these capabilities alone.
fn with(capabilities: &str, args: &[&str]) -> (i32, String) {
    let agent = agent_command(args);
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--bounding-set=-all{capabilities}"))
        .arg(format!("--inh-caps=-all{capabilities}"))
        .arg(agent.get_program())
        .args(agent.get_args())
        .stdin(Stdio::null());
    told(&command.output().unwrap())
}

#[test]
fn a_missing_privilege_is_no_property_of_the_target() {
    let program = compile("steady.c", &["-O2"]);
    // Somebody else's: root without CAP_SYS_PTRACE may not look.
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--clear-groups"])
        .arg(&program);
    let target = Target::start_command(command);
    let pid = target.pid.to_string();
    let run = ["--pid", &pid, "--probe", "a:outer", "--duration", "1"];
    let (code, said) = with(",+bpf,+perfmon", &run);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("CAP_SYS_PTRACE"), "{said}");
    let (code, said) = with(",+bpf,+perfmon", &["symbols", "--pid", &pid]);
    assert_eq!(code, 3, "{said}");
    let least = ",+bpf,+perfmon,+sys_ptrace,+checkpoint_restore,+dac_read_search";
    let (code, said) = with(least, &run);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("CAP_SETUID"), "{said}");
    let least = format!("{least},+setuid,+setgid");
    let (code, said) = with(&least, &run);
    assert_eq!(code, 0, "{said}");
    let (code, said) = with(&least, &["doctor"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = with(",+sys_ptrace", &["doctor"]);
    assert!(code == 3 && said.contains("privileges"), "{said}");
    // A key that is another user's own is none of a run's business.
    let home = tempfile::tempdir().unwrap();
    let stored = home.path().join(".teracron");
    std::fs::create_dir(&stored).unwrap();
    std::fs::write(stored.join("credentials.json"), "{}").unwrap();
    let mode = |path, mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
    };
    mode(&stored, 0o700);
    mode(&home.path().to_path_buf(), 0o755);
    let agent = agent_command(&["config", "--pid", "1"]);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(agent.get_program())
        .args(agent.get_args())
        .env("HOME", home.path())
        .output();
    let (code, said) = told(&output.unwrap());
    // Where nobody may run what lies in this folder, there is nothing to see.
    if code != 126 && code != 127 {
        assert!(
            code == 0 && said.contains("no stored key is used"),
            "{code} {said}"
        );
    }
}

/// What an agent writes on a terminal of so many columns.
fn on_a_terminal(columns: usize, command: &str) -> String {
    let script = format!("stty cols {columns}; exec {command}");
    let output = Command::new("script")
        .args(["-qefc", &script, "/dev/null"])
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout)
        .replace(['\r'], "")
        .replace("\x1b[K", "")
}

#[test]
fn lines_break_between_words_at_the_terminals_width() {
    let agent = agent_command(&[]);
    let agent = agent.get_program().to_str().unwrap();
    let command =
        format!("env TERACRON_INTERVALL=5 {agent} config --pid 1 --domain www.teracron.com");
    let sentence = "teracron-agent: TERACRON_INTERVALL is no variable of this agent; did you mean TERACRON_INTERVAL?";
    let narrow = on_a_terminal(80, &command);
    let mut lines = narrow.lines();
    let first = lines.find(|line| line.contains("INTERVALL")).unwrap();
    let second = lines.next().unwrap();
    assert!(
        first.chars().count() <= 80 && second.starts_with("    "),
        "{narrow}"
    );
    assert_eq!(format!("{first} {}", second.trim_start()), sentence);
    let wide = on_a_terminal(200, &command);
    assert!(wide.lines().any(|line| line == sentence), "{wide}");
}

#[test]
fn trees_break_between_words_at_the_terminals_width() {
    let program = compile("steady.c", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    target.go();
    let agent = agent_command(&[]);
    let agent = agent.get_program().to_str().unwrap();
    let workflow = "a_workflow_whose_name_is_so_long_that_little_else_fits_into_a_line";
    let command = format!(
        "{agent} --pid {} --probe {workflow}:outer --probe {workflow}:kept --duration 500ms",
        target.pid
    );
    let narrow = on_a_terminal(80, &command);
    let roots: Vec<(usize, &str)> = narrow
        .lines()
        .enumerate()
        // One that was open when the probes came is missing, and what it had called is a root without children.
        .filter(|(_, line)| line.contains(&format!("✓ {workflow} outer")))
        .collect();
    assert!(!roots.is_empty(), "{narrow}");
    let all: Vec<&str> = narrow.lines().collect();
    for (place, _) in roots {
        // It has children: the line goes on beside the way down to them.
        assert!(all[place + 1].starts_with("│    "), "{narrow}");
        assert!(all[place].chars().rev().take(80).count() <= 80, "{narrow}");
    }
    let wide = on_a_terminal(200, &command);
    let whole = wide.lines().find(|line| line.contains("✓ a_workflow"));
    assert!(whole.unwrap().contains(" thread "), "{wide}");
}

#[test]
fn a_run_that_saw_nothing_says_why() {
    let program = compile("steady.c", &["-O2"]);
    // Neither has been told to begin.
    let traced = Target::start(&program, &[]);
    let other = Target::start_command(Command::new(&program));
    let pid = traced.pid.to_string();
    let run = ["--pid", &pid, "--probe", "a:outer", "--duration", "200ms"];
    let (code, said) = agent(&run);
    assert_eq!(code, 0, "{said}");
    let expected = format!(
        "the function was not called in the traced process; 1 process with the same code was not traced: {} (",
        other.pid
    );
    assert!(said.contains(&expected), "{said}");
    let both = other.pid.to_string();
    let (_, said) = agent(&[&run[..], &["--pid", &both]].concat());
    let expected = "the function was not called in the 2 processes that were traced\n";
    assert!(said.contains(expected), "{said}");
}

/// What is shown of the captures of `find` and `charge`: all values of a key.
fn shown(
    program: &std::path::Path,
    more: &str,
    flags: &[&str],
) -> (Vec<serde_json::Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    std::fs::write(&config, format!("scrub_hash_key = 'k'\n{more}")).unwrap();
    let file = config.to_str().unwrap();
    let mut target = Target::start(program, &[]);
    let probes = ["t:charge(order.id, order->customer->name, note)"];
    let flags = [&["--config", file, "--probe", probes[0]], flags].concat();
    let agent = Agent::start(target.pid, &flags);
    target.go();
    target.log();
    target.finish();
    let report = agent.finish();
    report.assert_nothing_lost();
    let captured = report.spans.iter().map(|span| span.captured.clone());
    (captured.collect(), report.said)
}

#[test]
fn what_is_not_sent_is_not_shown_either() {
    let program = compile("captures.c", &["-g", "-O2"]);
    let (plain, _) = shown(&program, "", &[]);
    // Calls of which something was read, for the rules take none away.
    let known = plain.iter().position(|it| it["order.id"] == 1_000_003);
    let known = known.unwrap();
    let rules =
        "[[scrub]]\ndrop = 'note'\n[[scrub]]\nreplace = '[aeiou]'\n[[scrub]]\nhash = 'order.id'\n";
    let (scrubbed, said) = shown(&program, rules, &[]);
    let first = &scrubbed[known];
    assert!(first.get("note").is_none(), "{first}");
    let name = first["order->customer->name"].as_str().unwrap();
    assert!(name.contains("[scrubbed]") && !name.contains('a'), "{name}");
    assert_eq!(first["order.id"].as_str().unwrap().len(), 64, "{first}");
    assert!(!said.contains("not shown"), "{said}");
    let (all, _) = shown(&program, rules, &["--unscrubbed-output"]);
    assert_eq!(all, plain);
    // Its answers are where spans are sent.
    let program_of_ones_own = "scrubber = ['/bin/cat']\n";
    let (none, said) = shown(&program, program_of_ones_own, &[]);
    assert!(none.iter().all(serde_json::Value::is_null), "{none:?}");
    assert!(said.contains("--unscrubbed-output shows them"), "{said}");
}

#[test]
fn what_a_closed_output_did_not_take_is_told() {
    let program = compile("steady.c", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    let pid = target.pid.to_string();
    let mut command = agent_command(&["--pid", &pid, "--probe", "a:outer", "--output", "json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut agent = command.spawn().unwrap();
    let mut stderr = std::io::BufReader::new(agent.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("tracing process") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    // Nobody will read what comes.
    drop(agent.stdout.take());
    target.go();
    stderr.read_to_string(&mut said).unwrap();
    assert!(agent.wait().unwrap().success(), "{said}");
    assert!(
        said.contains(" not printed because standard output took no more"),
        "{said}"
    );
}

#[test]
fn a_full_disk_has_a_last_line() {
    let program = compile("steady.c", &["-O2"]);
    let mut target = Target::start(&program, &[]);
    let pid = target.pid.to_string();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = agent_command(&["--pid", &pid, "--probe", "a:outer", "--output", "json"]);
    command.stdout(full).stderr(Stdio::piped());
    let mut agent = command.spawn().unwrap();
    let mut stderr = std::io::BufReader::new(agent.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("tracing process") {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
    }
    target.go();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(agent.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("cannot write spans"), "{said}");
    assert!(
        said.contains(" not printed because standard output took no more"),
        "{said}"
    );
}
