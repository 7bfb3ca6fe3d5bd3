//! Functions that the compiler put into their callers: they are told, and counted where asked for; counts
//! are what the target itself counted.

use crate::support::*;

#[test]
fn calls_are_counted_where_cpp_inlined_them() {
    for flags in [
        &["-g", "-O1"][..],
        &["-g", "-O2"],
        &["-g", "-O3"],
        &["-gdwarf-4", "-O2"],
        &["-g", "-O2", "-flto"],
        &["clang", "-g", "-O2"],
        &["clang", "-gdwarf-4", "-O3"],
    ] {
        let program = compile("inlines.cpp", flags);
        inlined::check(&format!("{flags:?}"), &program);
    }
}

#[test]
fn a_function_without_code_of_its_own_is_named() {
    let program = compile("inlines.cpp", &["-g", "-O2"]);
    let output = agent_command(&[
        "--exe",
        program.to_str().unwrap(),
        "--probe",
        "t:shop::Cart::total",
    ])
    .output()
    .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("the compiler put all of its calls into the callers (2 places in inlines-"),
        "{said}"
    );
}

#[test]
fn async_functions_without_a_poll_of_their_own_are_refused_with_the_reason() {
    let program = compile("awaited.rs", &["-O", "-g"]);
    for (probe, reason) in [
        (
            "t:awaited::leaf",
            "the compiler put the polls of this async function into what awaits it (1 place in",
        ),
        // What is called is there, but it is not the call.
        (
            "t:awaited::request",
            "it is an async function, whose polls the compiler put into what awaits it",
        ),
    ] {
        let path = program.to_str().unwrap();
        let output = agent_command(&["--exe", path, "--probe", probe, "--duration", "5"])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}
