//! The layers together, and the table that they are made of.

use std::{collections::BTreeSet, fs, io::Write as _, path::Path, time::Duration};

use proptest::prelude::*;

use super::{About, ConfigFile, Environment, Flag, Flags, Settings, table::TABLE};
use crate::cli::{Cli, exit_code};
use model::error::Result;

/// Settings out of flags, environment and file.
fn settings(line: &[&str], environment: &[(&str, &str)], file: &str) -> Result<Settings> {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(file.as_bytes()).unwrap();
    let path = config.path().to_str().unwrap();
    let start = ["teracron-agent", "--config", path];
    let cli = Cli::read(start.iter().chain(line)).unwrap();
    let flags = Flags {
        account: &cli.account,
        run: &cli.run,
        json: cli.json,
    };
    Settings::resolve(&flags, &Environment::from(environment))
}

fn source<'a>(settings: &'a Settings, name: &str) -> &'a str {
    let shown = settings.shown.iter().find(|shown| shown.name == name);
    &shown.unwrap().source
}

/// What is said of a command line that is refused.
fn refused(line: &[&str]) -> String {
    let error = Cli::read(["teracron-agent"].iter().chain(line)).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{line:?}");
    error.to_string()
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "interval = 20\ntrace_batch_size = 7\nspool_max = '1 MiB'\n";
    let environment = [("TERACRON_INTERVAL", "30"), ("TERACRON_DEBUG", "YES")];
    let all = settings(&["--interval", "40"], &environment, file).unwrap();
    assert_eq!(all.interval, Duration::from_secs(40));
    assert_eq!(source(&all, "interval"), "--interval");
    let two = settings(&[], &environment, file).unwrap();
    assert_eq!(two.interval, Duration::from_secs(30));
    assert_eq!(source(&two, "interval"), "TERACRON_INTERVAL");
    assert!(two.debug);
    let one = settings(&[], &[], file).unwrap();
    assert_eq!(one.interval, Duration::from_secs(20));
    assert_eq!((one.batch_size, one.spool_max), (7, 1 << 20));
    let none = settings(&[], &[], "").unwrap();
    assert_eq!(none.interval, Duration::from_secs(10));
    assert_eq!(source(&none, "interval"), "default");
    assert!(none.warnings.is_empty(), "{:?}", none.warnings);
}

#[test]
fn variables_are_clamped_and_what_can_not_be_read_is_the_default() {
    for (given, wanted) in [
        ("1", 5),
        ("1e9", 300),
        ("nan", 5),
        ("x", 10),
        ("1_5", 15),
        ("2m", 120),
    ] {
        let settings = settings(&[], &[("TERACRON_INTERVAL", given)], "").unwrap();
        assert_eq!(settings.interval, Duration::from_secs(wanted), "{given}");
        let is_fine = ["1_5", "2m"].contains(&given);
        assert_eq!(settings.warnings.is_empty(), is_fine, "{given}");
    }
    let given = settings(&[], &[("TERACRON_INTERVAL", "1")], "").unwrap();
    assert_eq!(
        given.warnings,
        ["interval is 1 (TERACRON_INTERVAL), out of range (5 to 300): 5 is used"]
    );
    let given = settings(&[], &[("TERACRON_MAX_BUFFER", "-3")], "").unwrap();
    assert_eq!(given.max_buffer, 1);
    // A switch counts as for every Teracron client; who meant something else is told.
    let given = settings(&[], &[("TERACRON_TRACING_ENABLED", "on")], "").unwrap();
    assert_eq!(
        given.warnings,
        [
            "TERACRON_TRACING_ENABLED is on, which can't be read (true or false is wanted): false is used"
        ]
    );
    let given = settings(&[], &[("TERACRON_TARGET_PID", "x\x1b[2J")], "").unwrap();
    assert!(!given.warnings[0].contains('\x1b'), "{:?}", given.warnings);
}

#[test]
fn flags_out_of_their_range_are_refused_with_it() {
    for (line, said) in [
        (&["--interval", "1"][..], "out of range: 5 to 300"),
        (&["--interval", "-3"], "out of range: 5 to 300"),
        (&["--interval", "nan"], "out of range: 5 to 300"),
        (&["--timeout", "1m"], "out of range: 2 to 30"),
        (&["--max-buffer", "0"], "out of range: 1 to 10000"),
        (&["--max-buffer", "1.5"], "a whole number is wanted"),
        (&["--trace-sample-rate", "2"], "out of range: 0 to 1"),
        (&["--trace-sample-rate", "many"], "a percentage like 10%"),
        (&["--spool-max", "5"], "out of range: 64KiB or more"),
        (&["--duration", "0"], "out of range"),
        (&["--duration", "soon"], "5s, 2m or 500ms"),
        (&["--tracing-enabled", "maybe"], "true or false is wanted"),
        (&["--output", "xml"], "possible values: console, json, none"),
        (&["--pid", "no-such-name"], "no process is called so"),
        (&["--pdi", "1"], "--pid"),
    ] {
        let message = refused(line);
        assert!(message.contains(said), "{line:?}: {message}");
    }
}

#[test]
fn durations_and_rates_with_units() {
    let line = [
        "--duration",
        "2m",
        "--trace-sample-rate",
        "10%",
        "--interval",
        "5s",
    ];
    let given = settings(
        &line,
        &[],
        "flush_deadline = '1m30s'\nscrubber_timeout = '2s'\n",
    )
    .unwrap();
    assert_eq!(given.duration, Some(Duration::from_secs(120)));
    assert_eq!(given.targets.sample_rate, 0.1);
    assert_eq!(given.interval, Duration::from_secs(5));
    assert_eq!(given.flush_deadline, Duration::from_secs(90));
    assert_eq!(given.scrub.timeout, Duration::from_secs(2));
    let plain = settings(&["--duration", "5"], &[], "scrubber_timeout = 250\n").unwrap();
    assert_eq!(plain.duration, Some(Duration::from_secs(5)));
    assert_eq!(plain.scrub.timeout, Duration::from_millis(250));
}

#[test]
fn mistakes_in_the_file_name_their_key_and_line() {
    for (file, words) in [
        (
            "interval = 10\nfrobnicate = 2\n",
            "line 2: frobnicate is no key",
        ),
        (
            "\nprob = 1\n",
            "line 2: prob is no key of the file; did you mean probe?",
        ),
        ("trace-sample-rate = 1\n", "did you mean trace_sample_rate?"),
        (
            "interval = 'ten'\n",
            "line 1: interval: a number of seconds",
        ),
        (
            "interval = [1]\n",
            "line 1: interval: seconds is wanted, not a list",
        ),
        (
            "debug = 1\n",
            "line 1: debug: true or false is wanted, not a number",
        ),
        (
            "api_key = 5\n",
            "line 1: api_key: a text is wanted, not a number",
        ),
        ("pid = [1,\n 'x-y']\n", "line 2: pid: x-y is a name"),
        (
            "output = 'xml'\n",
            "line 1: output: one of console, json, none is wanted",
        ),
        ("interval = 1 2\n", "line 1"),
        (
            "\n\n[[probe]]\nworkflow = ''\nfunction = 'f'\n",
            "line 3: probe: ",
        ),
        (
            "[[probe]]\nfunktion = 'f'\n",
            "line 2: probe: funktion is no key of [[probe]]; did you mean function?",
        ),
        ("[[probe]]\nfunction = 5\n", "line 2: probe: function: "),
        (
            "[[probe]]\nfunction = 'f'\ninlined = 'counts'\n",
            "line 3: probe: inlined: ",
        ),
        ("[[scrub]]\n", "exactly one"),
        (
            "[[scrub]]\nreplace = '('\n",
            "line 1: scrub: replace: regex parse error: ( ^ error: unclosed group",
        ),
        ("[[scrub]]\ndorp = 'x'\n", "did you mean drop?"),
        ("scrub = 'x'\n", "a table is wanted ([[scrub]]), not a text"),
        (
            "scrubber = []\n",
            "line 1: scrubber: the program is missing",
        ),
        (
            "\nscrubber_env = ['TERACRON_SCRUB_HASH_KEY']\n",
            "line 2: scrubber_env: no program",
        ),
        ("api_key = 'tcn_secret_looking_but_damaged'\n", "API key"),
        ("[[scrub]]\nhash = 'user'\n", "scrub_hash_key"),
        ("domain = 'evil.example'\n", "not a Teracron host"),
        ("project_slug = 'a-b-001'\n", "both"),
        ("color = 'always'\n", "color is no key"),
    ] {
        let error = settings(&[], &[], file).unwrap_err();
        assert_eq!(exit_code(&error), 2, "{file}");
        let said = error.to_string();
        assert!(said.contains(words), "{file}: {said}");
        assert!(!said.contains("secret_looking"), "{said}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn one_value_where_a_list_is_wanted() {
    let file =
        "pid = 7\nexe = '/bin/true'\nprobe = 'a:b'\nscrubber = 'cat'\nscrubber_env = 'HOME'\n";
    let given = settings(&[], &[], file).unwrap();
    assert_eq!(given.targets.pids, [7]);
    assert_eq!(given.targets.executables, [Path::new("/bin/true")]);
    assert_eq!(given.targets.probes[0].to_string(), "a:b");
    assert_eq!(given.scrub.program, Some(vec!["cat".to_owned()]));
    assert_eq!(given.scrub.variables, ["HOME"]);
    let file = "probe = ['a:b', 'c:d(x)']\n[scrub]\ndrop = 'x'\n";
    let given = settings(&[], &[], file).unwrap();
    assert_eq!(given.targets.probes.len(), 2);
    assert_eq!(given.scrub.rules.len(), 1);
    let given = settings(
        &[],
        &[],
        "[probe]\nworkflow = 'a'\nfunction = 'f'\ncapture = 'x'\n",
    )
    .unwrap();
    assert_eq!(given.targets.probes[0].to_string(), "a:f(x)");
}

#[test]
fn targets_are_of_one_layer_and_probes_too() {
    let file = "pid = [7]\n[[probe]]\nworkflow = 'a'\nfunction = 'f'\nmodule = 'libx.so'\n";
    let of_file = settings(&[], &[("TERACRON_TARGET_PID", "8")], file).unwrap();
    assert_eq!(of_file.targets.pids, [7, 8]);
    assert_eq!(of_file.targets.probes[0].to_string(), "a:f@libx.so");
    let flags = ["--pid", "9", "--probe", "b:g", "--pid", "10"];
    let of_flags = settings(&flags, &[("TERACRON_TARGET_PID", "8")], file).unwrap();
    assert_eq!(of_flags.targets.pids, [9, 10]);
    assert_eq!(of_flags.targets.probes.len(), 1);
    assert_eq!(of_flags.targets.probes[0].to_string(), "b:g");
    let off = [&flags[..], &["--tracing-enabled", "false"]].concat();
    assert!(settings(&off, &[], file).unwrap().targets.probes.is_empty());
    let error = settings(&["--probe", "b:g\x1b[2J"], &[], "").unwrap_err();
    assert!(error.to_string().starts_with("--probe: "), "{error}");
}

#[test]
fn what_a_probe_does_beside_spans() {
    let file = |more: &str| format!("[[probe]]\nworkflow = 'a'\nfunction = 'f'\n{more}\n");
    let read = |more: &str| settings(&[], &[], &file(more));
    let shown = |more: &str| read(more).unwrap().targets.probes[0].to_string();
    assert_eq!(shown(""), "a:f");
    assert_eq!(shown("inlined = 'ignore'\ngo_spawn = 'trace'"), "a:f");
    assert_eq!(
        shown("inlined = 'count'\ngo_spawn = 'child'"),
        "a:f inlined=count go_spawn=child"
    );
    let said = read("inlined = 'counts'").unwrap_err().to_string();
    assert!(
        said.contains("line 4") && said.contains("`count`"),
        "{said}"
    );
}

#[test]
fn switches_and_spools_of_every_layer() {
    let none = settings(&[], &[], "").unwrap();
    assert!(none.targets.follow && none.targets.span_memory && none.spool_dir.is_some());
    let flags = ["--no-follow", "--no-span-memory", "--no-spool", "--quiet"];
    let given = settings(&flags, &[], "follow = true\n").unwrap();
    assert!(!given.targets.follow && !given.targets.span_memory && given.quiet);
    assert_eq!((given.spool_dir, given.spool_max), (None, 16 << 20));
    let given = settings(&["--spool-dir", "/x"], &[("TERACRON_SPOOL", "0")], "").unwrap();
    assert_eq!(given.spool_dir.as_deref(), Some(Path::new("/x")));
    assert!(refused(&["--no-spool", "--spool-dir", "/x"]).contains("cannot be used with"));
    let json = settings(&["--json"], &[("TERACRON_OUTPUT", "none")], "").unwrap();
    assert_eq!(source(&json, "output"), "--json");
}

#[test]
fn what_is_shown_has_every_setting_that_is_in_force() {
    let given = settings(
        &["--pid", "1", "--duration", "9"],
        &[],
        "scrub_hash_key = 'secret'\n",
    )
    .unwrap();
    let shown: BTreeSet<&str> = given.shown.iter().map(|shown| shown.name).collect();
    for row in TABLE {
        // Whatever has a default is in force.
        let about = row.about();
        if row.default_text().is_some() && about.key != "config" {
            assert!(shown.contains(about.key), "{}", about.key);
        }
    }
    assert!(shown.contains("scrub_hash_key"));
    assert!(
        given
            .shown
            .iter()
            .all(|shown| !shown.value.contains("secret"))
    );
}

proptest! {
    #[test]
    fn no_file_is_too_strange(
        parts in proptest::collection::vec(
            prop_oneof![
                "\\PC{0,6}",
                "[\n =\\[\\]\"'{},.0-9\x1b]{1,4}",
                Just("[[probe]]\nfunction = ".to_owned()),
                Just("[[scrub]]\nreplace = ".to_owned()),
                Just("\ninlined = '''a\n\x1b[2J'''\n".to_owned()),
                Just("\ninterval = ".to_owned()),
                Just("\npid = ".to_owned()),
            ],
            0..12,
        ),
    ) {
        if let Err(error) = ConfigFile::parse(&parts.concat(), "f") {
            let said = error.to_string();
            prop_assert!(said.starts_with("f, line "), "{}", said);
            prop_assert!(!said.contains(['\n', '\x1b']), "{:?}", said);
        }
    }
}

#[test]
fn each_row_is_one_setting() {
    let mut names = BTreeSet::new();
    for row in TABLE {
        let about = row.about();
        assert!(names.insert(about.key), "{} twice", about.key);
        assert!(!about.help.ends_with('.'), "{}", about.key);
        let has_a_way = about.flag != Flag::None || about.variable || about.file;
        assert!(has_a_way, "{}", about.key);
        assert!(
            about.against.is_empty() || TABLE.iter().any(|row| row.about().key == about.against)
        );
        // What may change at run time is read again from somewhere.
        assert!(!about.reloadable || about.file, "{}", about.key);
    }
}

/// What a setting means: a flag that switches off says what is off then.
fn meaning(about: &About) -> String {
    match about.flag {
        Flag::Sets(_, false) => {
            format!(
                "`false`: {}{}",
                about.help[..1].to_lowercase(),
                &about.help[1..]
            )
        }
        _ => about.help.to_owned(),
    }
}

/// The table of docs/settings.md.
fn page_table() -> String {
    let mut lines = vec![
        "| key | flag | variable | default | range | SIGHUP | |".to_owned(),
        "| --- | --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    for row in TABLE {
        let about = row.about();
        let code = |text: Option<String>| text.map_or_else(String::new, |text| format!("`{text}`"));
        let (default, range) = (row.default_text().unwrap_or_default(), row.range());
        let range = range.filter(|_| row.default_text().is_some());
        let unit = match row.kind_name() {
            "milliseconds" => " ms",
            _ => "",
        };
        lines.push(format!(
            "| {} | {} | {} | {default}{} | {} | {} | {} |",
            code(about.file.then(|| about.key.to_owned())),
            code(about.flag_name()),
            code(about.variable.then(|| about.variable_name())),
            if default.is_empty() { "" } else { unit },
            range.unwrap_or_default(),
            if about.reloadable { "yes" } else { "" },
            meaning(about).replace('|', "\\|")
        ));
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_page_has_this_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let page = fs::read_to_string(&path).unwrap();
    let table = page_table();
    assert!(
        page.contains(&table),
        "docs/settings.md lacks this table:\n\n{table}"
    );
}
