//! Results that a compiler has dropped, as it may where it knows all callers: what is told of them is right, or missing
//! with its reason.

use crate::support::*;

/// What was told of the calls of a target: right values, and those that are missing, by `call.key`.
fn told(program: &std::path::Path, probes: &[&str], prefix: &str) -> (Vec<String>, Vec<String>) {
    let arguments: Vec<&str> = probes.iter().flat_map(|probe| ["--probe", probe]).collect();
    let mut target = Target::start(program, &[]);
    let agent = Agent::start(target.pid, &arguments);
    target.go();
    let log = target.log();
    target.finish();
    let report = agent.finish();
    let mut spans = report.spans.clone();
    spans.sort_by_key(|span| span.started_at_ns);
    let (mut right, mut missing) = (Vec::new(), Vec::new());
    let mut spans = spans.iter();
    for line in &log {
        let wanted: serde_json::Value = serde_json::from_str(line).unwrap();
        let wanted = wanted.as_object().unwrap();
        let call = wanted["call"].as_str().unwrap();
        // With a rule that can't be evaluated it is not traced at all.
        let is_refused = report.said.lines().any(|line| {
            let Some((refused, _)) = line.split_once("which of its calls fail can't be told")
            else {
                return false;
            };
            let mut names = refused.split([' ', '(', ')', ';']);
            names.any(|name| name.strip_prefix(prefix).unwrap_or(name) == call)
        });
        if is_refused {
            missing.push(format!("{call}.ret"));
            continue;
        }
        let Some(span) = spans.next() else {
            panic!("{program:?}: {call} has no span: {}", report.said);
        };
        assert_eq!(
            span.operation
                .strip_prefix(prefix)
                .unwrap_or(&span.operation),
            call,
            "{program:?}: {}",
            report.said
        );
        let is_told = |key: &str| {
            report.said.lines().any(|line| {
                let is_key = line.contains(&format!("{key} can't be read: "))
                    || line.contains(&format!("{key}=ret:i32 can't be read: "));
                line.contains(call) && is_key
            })
        };
        let mut note = |key: &str, found: Option<&serde_json::Value>| {
            let name = format!("{call}.{key}");
            match found {
                Some(found) => {
                    assert_eq!(
                        *found, wanted[key],
                        "{program:?}: {name}: {span:?}\n{}",
                        report.said
                    );
                    if !right.contains(&name) {
                        right.push(name);
                    }
                }
                None => {
                    assert!(
                        is_told(key),
                        "{program:?}: {name} is missing without a word: {}",
                        report.said
                    );
                    if !missing.contains(&name) {
                        missing.push(name);
                    }
                }
            }
        };
        for key in wanted
            .keys()
            .filter(|key| *key != "call" && *key != "status")
        {
            note(key, span.captured.get(key));
        }
        if span.status
            != wanted["status"]
                .as_str()
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
        {
            assert!(
                span.status == "succeeded"
                    && (is_told("whether it returned an error") || is_told("fails")),
                "{program:?}: {call} is told as {}, but {}: {}",
                span.status,
                wanted["status"],
                report.said
            );
        }
    }
    assert!(spans.next().is_none(), "{program:?}: more spans than calls");
    (right, missing)
}

const C: &[&str] = &[
    "t:address_left(ret) fails ret != 9",
    "t:argument_left(ret=ret:i32)",
    "t:product_left(ret)",
    "t:always(ret) fails ret != 4711",
    "t:stored(ret.b)",
    "t:sometimes(ret)",
    "t:pointed_to(ret)",
    "t:handed_on(ret)",
];

#[test]
fn c() {
    for flags in [
        &["-g", "-O0"][..],
        &["-g", "-O1"],
        &["-g", "-O2"],
        &["-g", "-O3"],
        &["-g", "-Os"],
        &["-g", "-O2", "-no-pie", "-fno-pic"],
        &["-g", "-O2", "-flto"],
        &["-g", "-O2", "-static"],
        &["-g", "-O2", "-Wl,-z,pack-relative-relocs"],
        &["clang", "-g", "-O0"],
        &["clang", "-g", "-O1"],
        &["clang", "-g", "-O2"],
        &["clang", "-g", "-Os"],
    ] {
        let program = compile("dropped.c", flags);
        let (right, missing) = told(&program, C, "");
        for name in ["sometimes.ret", "pointed_to.ret", "handed_on.ret"] {
            assert!(right.contains(&name.to_owned()), "{flags:?}: {missing:?}");
        }
        if flags.contains(&"-O2") {
            for name in ["address_left.ret", "argument_left.ret", "product_left.ret"] {
                assert!(missing.contains(&name.to_owned()), "{flags:?}: {right:?}");
            }
        }
    }
}

#[test]
fn cpp() {
    for flags in [
        &["-g", "-O0"][..],
        &["-g", "-O2"],
        &["-g", "-O3"],
        &["-g", "-O2", "-flto"],
        &["clang", "-g", "-O0"],
        &["clang", "-g", "-O2"],
    ] {
        let program = compile("dropped.cpp", flags);
        let probes = [
            "t:Box<int>::get(ret) fails ret < 9",
            "t:Box<int>::add(ret)",
            "t:*half(ret.a, ret.b)",
        ];
        let (right, missing) = told(&program, &probes, "");
        assert!(
            right.contains(&"Box<int>::add.ret".to_owned()),
            "{flags:?}: {missing:?}"
        );
    }
}

#[test]
fn rust() {
    for flags in [
        &["-g"][..],
        &["-g", "-O"],
        &["-g", "-O", "-Clto=fat", "-Cembed-bitcode=yes"],
    ] {
        let program = compile("dropped.rs", flags);
        let probes = [
            "t:dropped::price(ret) fails ret != 9",
            "t:dropped::judged",
            "t:dropped::total(ret)",
        ];
        let (right, missing) = told(&program, &probes, "dropped::");
        assert!(
            right.contains(&"total.ret".to_owned()),
            "{flags:?}: {missing:?}"
        );
    }
}

#[test]
fn what_a_function_does_with_its_parameters_is_not_what_it_got() {
    let probes = [
        "t:swapped(from, to)",
        "t:levelled(level, by)",
        "t:deep(depth, amount)",
        "t:ninth(depth, s1, p9)",
    ];
    for flags in [
        &["-g", "-O0"][..],
        &["-g", "-O0", "-DREGISTER=register"],
        &["-g", "-O1"],
        &["-g", "-O2"],
        &["-g", "-O3"],
        &["-g", "-Os"],
        &["-g", "-gdwarf-4", "-O2"],
        &["-g", "-O2", "-fno-var-tracking"],
        &["-g", "-Os", "-fno-var-tracking", "-fno-omit-frame-pointer"],
        &["clang", "-g", "-O0"],
        &["clang", "-g", "-O1"],
        &["clang", "-g", "-O2"],
        &["clang", "-g", "-Os"],
    ] {
        let program = compile("moved.c", flags);
        let (right, missing) = told(&program, &probes, "");
        println!("{flags:?}: right {right:?}, missing {missing:?}");
        if flags == ["-g", "-O2"] {
            for name in ["swapped.from", "swapped.to", "deep.amount", "levelled.by"] {
                assert!(right.contains(&name.to_owned()), "{missing:?}");
            }
        }
    }
}
