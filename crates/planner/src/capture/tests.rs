//! Plans as text, without a kernel: what a probe reads is what stands there.

use super::*;
use crate::probe_spec::ProbeSpec;
use image::symbol::Language;
use sites::Prologue;
use teracron_common::{
    ProbeId,
    plan::{ItemHead, ItemKind},
};

fn request(spec: &str) -> Request {
    let spec: ProbeSpec = spec.parse().unwrap();
    Request {
        captures: spec.captures,
        fails: spec.fails,
    }
}

fn subject(prologue: &Prologue, language: Language) -> Subject<'_> {
    Subject {
        language,
        info: Err("there is no debug information".to_owned()),
        prologue,
        certainty: Certainty::Whole,
        address: 0,
        reads: None,
        errno: true,
        future: None,
    }
}

fn plans(spec: &str, language: Language) -> String {
    let prologue = Prologue::default();
    let subject = subject(&prologue, language);
    let request = request(spec);
    let mut problems = Vec::new();
    let exit = at_exit(&request, &subject, ProbeId(7), &mut problems);
    let entry = at_entry(&request, &subject, 0, false, ProbeId(7), &mut problems);
    let shown =
        |plan: Option<CapturePlan>| plan.map_or("  nothing\n".to_owned(), |plan| plan.to_string());
    let problems: Vec<String> = problems
        .iter()
        .map(|problem| format!("{problem}\n"))
        .collect();
    format!(
        "entry\n{}exit\n{}{}",
        shown(entry),
        shown(exit),
        problems.concat()
    )
}

#[test]
fn by_position() {
    insta::assert_snapshot!(
        plans("p:charge(order=arg1:u32, name=arg2:str, late=arg7:i64, ret=ret:i32, other)", Language::C),
        @r"
    entry
        0  value = rdi
        1  value = value >> 0 & 0xffffffff
        2  send value as order (unsigned)
        3  value = rsi
        4  if value == 0 to 7
        5  send the bytes at value up to a NUL, at most 512, as name (text)
        6  to 8
        7  send nothing as name (text)
        8  value = frame address
        9  value = 8 bytes at value, else to 11
       10  send value as late (signed)
    exit
        0  value = rax
        1  value = value >> 0 & 0xffffffff
        2  value = its 32 bits, signed
        3  send value as ret (signed)
    other can't be read: there is no debug information
    "
    );
}

#[test]
fn a_null_pointer_fails() {
    insta::assert_snapshot!(plans("p:find fails null", Language::C), @r"
    entry
      nothing
    exit
        0  value = rax
        1  if value != 0 to 6
        2  the call has failed
        3  value = address of errno, where the process's is known, else to 6
        4  value = 4 bytes at value, else to 6
        5  send value as error message (errno)
    ");
}

#[test]
fn go_passes_in_other_registers() {
    insta::assert_snapshot!(plans("p:main.f(a=arg1:i64, b=arg4:bool)", Language::Go), @r"
    entry
        0  value = rax
        1  send value as a (signed)
        2  value = rdi
        3  value = value >> 0 & 0xff
        4  send value as b (boolean)
    exit
      nothing
    ");
}

/// The bytes of an item as the kernel side writes them.
fn item(key: u8, kind: ItemKind, payload: &[u8], full: u32) -> Vec<u8> {
    let head = ItemHead {
        key,
        kind: kind as u8,
        len: if matches!(kind, ItemKind::Text) {
            payload.len() as u16
        } else {
            0
        },
        full,
    };
    let mut bytes = vec![head.key, head.kind];
    bytes.extend_from_slice(&head.len.to_le_bytes());
    bytes.extend_from_slice(&head.full.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[test]
fn items_become_values() {
    let prologue = Prologue::default();
    let subject = subject(&prologue, Language::C);
    let request =
        request("p:f(n=arg1:i8, s=arg2:str, b=arg3:bool, c=arg4:char, p=arg5:ptr, u=arg6:u64)");
    let plan = at_entry(&request, &subject, 0, false, ProbeId(0), &mut Vec::new()).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(item(0, ItemKind::Value, &(-5i64).to_le_bytes(), 0));
    bytes.extend(item(1, ItemKind::Text, "für".as_bytes(), 4));
    bytes.extend(item(2, ItemKind::Value, &1u64.to_le_bytes(), 0));
    bytes.extend(item(3, ItemKind::Value, &0x78u64.to_le_bytes(), 0));
    bytes.extend(item(4, ItemKind::Unreadable, &[], 0));
    bytes.extend(item(5, ItemKind::Value, &u64::MAX.to_le_bytes(), 0));
    let mut captured = Captured::default();
    read(&plan, &bytes, &mut captured);
    let shown: Vec<String> = captured
        .parameters
        .iter()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    assert_eq!(
        shown,
        [
            "n=Whole(-5)",
            "s=Text(\"für\")",
            "b=Flag(true)",
            "c=Text(\"x\")",
            "u=Text(\"18446744073709551615\")"
        ]
    );
}

mod foreign {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for _ in Items(&bytes) {}
        }
    }
}
