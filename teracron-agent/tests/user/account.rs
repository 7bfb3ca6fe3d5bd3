//! `login`, `logout`, `whoami` and `config`, as a person calls them. Needs no root.

use std::{io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use crate::support::{agent_command, service::*};
use serde_json::Value;

/// Exit code, stdout, stderr.
fn call(
    home: &Path,
    args: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> (i32, String, String) {
    let mut command = agent_command(args);
    for name in ["TERACRON_API_KEY", "TERACRON_DOMAIN", "TERACRON_INTERVAL"] {
        command.env_remove(name);
    }
    let mut child = command
        .env("HOME", home)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn login_whoami_logout() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let masked = format!(
        "{}...{}",
        &api_key()[..8],
        &api_key()[api_key().len() - 4..]
    );
    let whoami = || call(home, &["whoami", "--json"], &[], "").1;
    assert_eq!(json(&whoami())["authenticated"], false);
    // On standard input; the reference's keys, the key itself never.
    let (code, out, err) = call(home, &["--json", "login"], &[], &format!("{}\n", api_key()));
    assert_eq!(code, 0, "{err}");
    let answer = json(&out);
    assert_eq!(answer["status"], "authenticated");
    assert_eq!(answer["project_slug"], slug());
    assert_eq!(answer["domain"], "www.teracron.com");
    assert_eq!(answer["api_key_masked"], masked);
    let path = home.join(".teracron/credentials.json");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let stored = json(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(stored["api_key"], api_key());
    assert!(stored["created_at"].is_u64() && stored["expires_at"].is_null());
    let answer = json(&whoami());
    assert_eq!(answer["source"], "credentials_file");
    assert_eq!(answer["project_slug"], slug());
    // The environment wins.
    let (_, out, _) = call(
        home,
        &["whoami", "--json"],
        &[("TERACRON_API_KEY", api_key())],
        "",
    );
    assert_eq!(json(&out)["source"], "environment_variable");
    // For people: on stderr, masked.
    let (_, out, err) = call(home, &["whoami"], &[], "");
    assert!(
        out.is_empty() && err.contains(&masked) && !err.contains(api_key()),
        "{err}"
    );
    // A run finds it.
    let (_, out, _) = call(home, &["config", "--pid", "1"], &[], "");
    assert!(
        out.contains("credentials.json") && out.contains(&masked),
        "{out}"
    );
    let answer = json(&call(home, &["logout", "--json"], &[], "").1);
    assert_eq!(answer["deleted"], true);
    assert!(!path.exists());
    let answer = json(&call(home, &["logout", "--json"], &[], "").1);
    assert_eq!(answer["deleted"], false);
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    let home = tempfile::tempdir().unwrap();
    let vectors = json(include_str!("../../../crates/wire/tests/vectors.json"));
    let small = vectors["api_key_2048_refused_at_envelope"]
        .as_str()
        .unwrap();
    for (key, words) in [
        ("sk_live_1234567890", "begins with tcn_"),
        ("tcn_c2VjcmV0LXRoaW5n", "no public key"),
        ("", "no API key"),
        (small, "RSA-4096"),
    ] {
        let (code, _, err) = call(home.path(), &["login"], &[], key);
        assert_eq!(code, 2, "{key}");
        assert!(err.contains(words), "{key}: {err}");
        assert!(key.is_empty() || !err.contains(key), "{err}");
        if !key.is_empty() {
            let (code, _, err) = call(home.path(), &["--pid", "1", "--api-key", key], &[], "");
            assert_eq!(code, 2, "{key}");
            assert!(err.contains("--api-key") && err.contains(words), "{err}");
        }
    }
    let (code, _, err) = call(
        home.path(),
        &["login", "--domain", "evil.example", api_key()],
        &[],
        "",
    );
    assert!(code == 2 && err.contains("not a Teracron host"), "{err}");
}

#[test]
fn config_says_where_everything_comes_from() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("agent.toml");
    std::fs::write(
        &file,
        "interval = 3\ntrace_batch_size = 7\nscrub_hash_key = \"of the user\"\n\
         [[probe]]\nworkflow = \"pay\"\nfunction = \"shop::*\"\nmodule = \"libshop.so\"\n\
         [[scrub]]\nhash = \"user_id\"\n",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let args = [
        "config",
        "--config",
        path,
        "--pid",
        "7",
        "--timeout",
        "3",
        "--api-key",
        api_key(),
        "--json",
    ];
    let variables = [
        ("TERACRON_FLUSH_DEADLINE", "9999"),
        ("TERACRON_DEBUG", "no"),
        ("TERACRON_TRACE_SAMPLE_RATE", "lots"),
    ];
    let (code, out, err) = call(home.path(), &args, &variables, "");
    assert_eq!(code, 0, "{err}");
    let shown = json(&out);
    let of = |name: &str| {
        let all = shown.as_array().unwrap();
        let entry = all.iter().find(|entry| entry["name"] == name);
        let entry = entry.unwrap_or_else(|| panic!("{name} is missing: {out}"));
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        (text("value"), text("source"))
    };
    let pair = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(of("timeout"), pair("3", "--timeout"));
    assert_eq!(of("flush_deadline"), pair("600", "TERACRON_FLUSH_DEADLINE"));
    assert_eq!(of("interval"), pair("5", path));
    assert_eq!(of("trace_batch_size"), pair("7", path));
    assert_eq!(of("trace_sample_rate"), pair("1", "default"));
    assert_eq!(of("probe"), pair("pay:shop::*@libshop.so", path));
    assert_eq!(of("pid"), pair("7", "--pid"));
    assert_eq!(of("scrub_hash_key"), pair("****", path));
    assert_eq!(of("output"), pair("json", "--json"));
    assert_eq!(of("project_slug").0, slug());
    assert!(!out.contains(api_key()) && !out.contains("of the user"));
    // What was changed or passed over is told.
    for words in [
        "flush_deadline is 9999",
        "interval is 3",
        "TERACRON_TRACE_SAMPLE_RATE is lots",
    ] {
        assert!(err.contains(words), "{words}: {err}");
    }
    // Every setting of the protocol has its environment name, flag and key.
    for name in [
        "domain",
        "interval",
        "max_buffer",
        "flush_deadline",
        "timeout",
        "debug",
        "tracing_enabled",
        "trace_batch_size",
        "trace_flush_interval",
        "trace_sample_rate",
        "trace_emit_events",
    ] {
        of(name);
    }
    let (code, _, err) = call(
        home.path(),
        &["config", "--config", "/nonexistent.toml"],
        &[],
        "",
    );
    assert!(code == 2 && err.contains("/nonexistent.toml"), "{err}");
    std::fs::write(
        &file,
        "interval = 10\n\n[[probe]]\nworkflow = \"a\"\nfunction = \"0xzz\"\n",
    )
    .unwrap();
    let (code, _, err) = call(home.path(), &["config", "--config", path], &[], "");
    assert!(
        code == 2 && err.contains("line 3") && err.contains("0xzz"),
        "{err}"
    );
}
