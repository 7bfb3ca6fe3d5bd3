//! The layers together.

use std::{io::Write as _, time::Duration};

use super::{AccountArgs, Flags, Settings, ShipArgs, file::bytes};
use crate::cli::Cli;
use model::error::Result;

/// Settings out of run flags, environment and file.
fn settings(
    run: &[&str],
    ship: ShipArgs,
    environment: &[(&str, &str)],
    file: &str,
) -> Result<Settings> {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(file.as_bytes()).unwrap();
    let mut cli = Cli::read(["teracron-agent"].iter().chain(run)).unwrap();
    cli.run.ship = ship;
    let account = AccountArgs {
        config: Some(config.path().to_owned()),
        ..AccountArgs::default()
    };
    let flags = Flags {
        account: &account,
        run: &cli.run,
        json: false,
    };
    Settings::resolve(&flags, &|name| {
        environment
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

fn source<'a>(settings: &'a Settings, name: &str) -> &'a str {
    let shown = settings.shown.iter().find(|shown| shown.name == name);
    &shown.unwrap().source
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "interval = 20\ntrace_batch_size = 7\nspool_max = '1 MiB'\n";
    let environment = [("TERACRON_INTERVAL", "30"), ("TERACRON_DEBUG", "YES")];
    let ship = ShipArgs {
        interval: Some(40.0),
        ..ShipArgs::default()
    };
    let all = settings(&[], ship, &environment, file).unwrap();
    assert_eq!(all.interval, Duration::from_secs(40));
    assert_eq!(source(&all, "interval"), "--interval");
    let two = settings(&[], ShipArgs::default(), &environment, file).unwrap();
    assert_eq!(two.interval, Duration::from_secs(30));
    assert_eq!(source(&two, "interval"), "TERACRON_INTERVAL");
    assert!(two.debug);
    let one = settings(&[], ShipArgs::default(), &[], file).unwrap();
    assert_eq!(one.interval, Duration::from_secs(20));
    assert_eq!((one.batch_size, one.spool_max), (7, 1 << 20));
    let none = settings(&[], ShipArgs::default(), &[], "").unwrap();
    assert_eq!(none.interval, Duration::from_secs(10));
    assert_eq!(source(&none, "interval"), "default");
    assert!(none.warnings.is_empty(), "{:?}", none.warnings);
}

#[test]
fn ranges_are_clamped_and_what_can_not_be_read_is_the_default() {
    for (given, wanted) in [("1", 5), ("1e9", 300), ("nan", 5), ("x", 10), ("1_5", 15)] {
        let environment = [("TERACRON_INTERVAL", given)];
        let settings = settings(&[], ShipArgs::default(), &environment, "").unwrap();
        assert_eq!(settings.interval, Duration::from_secs(wanted), "{given}");
        assert_eq!(settings.warnings.is_empty(), given == "1_5", "{given}");
    }
    let environment = [("TERACRON_MAX_BUFFER", "-3")];
    let settings = settings(&[], ShipArgs::default(), &environment, "").unwrap();
    assert_eq!(settings.max_buffer, 1);
    assert_eq!(bytes("2GiB"), Ok(2 << 30));
    assert!(bytes("99999999999G").is_err() && bytes("12 apples").is_err());
}

#[test]
fn mistakes_in_the_file_name_their_line() {
    for (file, words) in [
        ("interval = 1\nfrobnicate = 2\n", "line 2"),
        ("\n\n[[probe]]\nworkflow = ''\nfunction = 'f'\n", "line 3"),
        ("[[scrub]]\n", "exactly one"),
        ("api_key = 'tcn_secret_looking_but_damaged'\n", "API key"),
        ("[[scrub]]\nhash = 'user'\n", "scrub_hash_key"),
        ("domain = 'evil.example'\n", "not a Teracron host"),
        ("project_slug = 'a-b-001'\n", "both"),
    ] {
        let error = settings(&[], ShipArgs::default(), &[], file).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{file}");
        let said = error.to_string();
        assert!(said.contains(words), "{file}: {said}");
        assert!(!said.contains("secret_looking"), "{said}");
    }
}

#[test]
fn targets_are_of_one_layer_and_probes_too() {
    let file = "pid = [7]\n[[probe]]\nworkflow = 'a'\nfunction = 'f'\nmodule = 'libx.so'\n";
    let of_file = settings(&[], ShipArgs::default(), &[], file).unwrap();
    assert_eq!(of_file.targets.pids, [7]);
    assert_eq!(of_file.targets.probes[0].to_string(), "a:f@libx.so");
    let flags = ["--pid", "9", "--probe", "b:g"];
    let of_flags = settings(&flags, ShipArgs::default(), &[], file).unwrap();
    assert_eq!(of_flags.targets.pids, [9]);
    assert_eq!(of_flags.targets.probes.len(), 1);
    assert_eq!(of_flags.targets.probes[0].to_string(), "b:g");
    let ship = ShipArgs {
        tracing_enabled: Some(false),
        ..ShipArgs::default()
    };
    assert!(
        settings(&flags, ship, &[], file)
            .unwrap()
            .targets
            .probes
            .is_empty()
    );
}

#[test]
fn what_a_probe_does_beside_spans() {
    let file = |more: &str| format!("[[probe]]\nworkflow = 'a'\nfunction = 'f'\n{more}\n");
    let read = |more: &str| settings(&[], ShipArgs::default(), &[], &file(more));
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
