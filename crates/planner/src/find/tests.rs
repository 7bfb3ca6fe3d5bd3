use image::symbol::GoProgram;

use super::{names::without_instance, *};

fn elf(symbols: &[(&str, u64, u64)]) -> Elf {
    let mut elf = Elf {
        segments: Vec::new(),
        symbols: symbols
            .iter()
            .map(|(name, address, size)| Symbol {
                version: None,
                name: (*name).to_owned(),
                address: *address,
                size: *size,
                kind: SymbolKind::Function,
                is_local: false,
                origin: Origin::Own,
            })
            .collect(),
        has_symtab: true,
        ..Elf::default()
    };
    elf.symbols.sort_by_key(|symbol| symbol.address);
    elf
}

fn found(elf: &Elf, pattern: &str) -> Vec<u64> {
    Functions::of(elf)
        .matching(&FunctionPattern::parse(pattern).unwrap())
        .into_iter()
        .map(|function| function.address)
        .collect()
}

#[test]
fn names_stand_for_clones() {
    let elf = elf(&[
        ("work", 0x10, 4),
        ("work.cold", 0x90, 4),
        ("work.constprop.0", 0x20, 4),
        ("work.isra.0", 0x30, 4),
        ("work.part.0", 0x40, 4),
        ("work.part.0.cold", 0xa0, 4),
        ("worker", 0x50, 4),
        ("_ZN4shop4workEi", 0x60, 4),
        ("_Z4worki", 0x70, 4),
    ]);
    assert_eq!(found(&elf, "work"), [0x10, 0x20, 0x30, 0x40, 0x70]);
    assert_eq!(found(&elf, "work(int)"), [0x70]);
    assert_eq!(found(&elf, "shop::work"), [0x60]);
    assert_eq!(found(&elf, "_ZN4shop4workEi"), [0x60]);
    assert_eq!(found(&elf, "shop::*"), [0x60]);
    assert_eq!(found(&elf, "0x50"), [0x50]);
    assert_eq!(found(&elf, "0x51"), [0u64; 0]);
    let functions = Functions::of(&elf);
    let all = functions.matching(&FunctionPattern::Name("work".into()));
    assert_eq!(all[0].cold, Some((0x90, 4)));
    assert!(all[3].is_part);
    assert_eq!(all[3].cold, Some((0xa0, 4)));
    assert_eq!(all[3].plain, "work");
    assert_eq!(functions.containing(0x52).unwrap().plain, "worker");
}

#[test]
fn instances_of_rusts_generic_functions() {
    for (name, without) in [
        ("shop::store::<u8>", "shop::store"),
        ("shop::store::<fn(u8) -> Vec<u8>>", "shop::store"),
        (
            "<shop::Cart<u8> as shop::Store>::store",
            "<shop::Cart<u8> as shop::Store>::store",
        ),
        ("shop::store", "shop::store"),
        ("<u8>", "<u8>"),
        (">>", ">>"),
    ] {
        assert_eq!(without_instance(name), without);
    }
    assert_eq!(
        future_owner("shop::charge::{{closure}}"),
        Some("shop::charge")
    );
    assert_eq!(
        future_owner("shop::charge::<u8>::{closure#0}"),
        Some("shop::charge::<u8>")
    );
    assert_eq!(future_owner("shop::charge::{{closure}}::{{closure}}"), None);
    assert_eq!(future_owner("shop::charge"), None);
}

#[test]
fn constructors_and_operators_are_found() {
    let elf = elf(&[
        ("_ZN4shop4CartC1Ev", 0x10, 4),
        ("_ZN4shop4CartC2Ev", 0x10, 4),
        ("_ZN4shop4CartixEi", 0x20, 4),
        ("_ZN4shop4CartD1Ev", 0x30, 4),
    ]);
    assert_eq!(found(&elf, "shop::Cart::Cart"), [0x10]);
    assert_eq!(found(&elf, "shop::Cart::operator[]"), [0x20]);
    assert_eq!(found(&elf, "shop::Cart::~Cart"), [0x30]);
}

/// What a pattern means in a program: addresses, or the names that it could mean.
fn meant(elf: &Elf, pattern: &str) -> Result<Vec<u64>, String> {
    let pattern = FunctionPattern::parse(pattern).unwrap();
    let mut candidates = Candidates::default();
    candidates.add(&pattern, 0, Whose::Own, elf);
    let chosen = candidates
        .choose(&pattern)
        .map_err(|names| names.join("; "))?;
    let files = chosen.map(|chosen| chosen.files).unwrap_or_default();
    let functions = files.into_iter().flat_map(|(_, functions)| functions);
    Ok(functions.map(|function| function.address).collect())
}

const LONG_STRING: &str = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE";

fn cpp() -> Elf {
    let of_string = format!("_ZNK3app2v33BoxI{LONG_STRING}Li1EE3getEv");
    let takes_string = format!("_ZN3app5fetchE{LONG_STRING}");
    elf(&[
        ("_ZNK3app2v33BoxIiLi2EE3getEv", 0x10, 4),
        (&of_string, 0x20, 4),
        ("_ZN5outer12_GLOBAL__N_14anonEi", 0x30, 4),
        (&takes_string, 0x40, 4),
        ("_ZNK3app2v33BoxIiLi2EEltERKS2_", 0x50, 4),
        ("_ZNK3app2v33BoxIiLi2EEcviEv", 0x60, 4),
        ("_ZNK3app2v33BoxIiLi2EEclEi", 0x70, 4),
        ("_ZNK3app2v33BoxIiLi2EEixEi", 0x80, 4),
        ("_ZNK3app2v33BoxIiLi2EEdeEv", 0x90, 4),
        ("_ZN3app2v33BoxIiLi2EED1Ev", 0xa0, 4),
        ("_ZN3app2v33BoxIiLi2EEC1Ev", 0xb0, 4),
        ("_ZN4shop4loadEv", 0xc0, 4),
        ("_ZN5stock4loadEv", 0xd0, 4),
        ("_ZNSt5deque4pullEv", 0xe0, 4),
        ("_ZN4shop4pullEv", 0xf0, 4),
        ("load_all", 0x100, 4),
    ])
}

#[test]
fn names_are_found_as_the_source_writes_them() {
    let elf = cpp();
    for (pattern, addresses) in [
        ("app::v3::Box<int, 2>::get", &[0x10u64][..]),
        ("app::Box<int, 2>::get", &[0x10]),
        ("app::Box<int,2>::get() const", &[0x10]),
        ("app::Box<*>::get", &[0x10, 0x20]),
        ("Box<std::string, 1>::get", &[0x20]),
        ("app::Box<std::string*>::get", &[0x20]),
        ("app::Box::get", &[0x10, 0x20]),
        ("get", &[0x10, 0x20]),
        ("outer::anon", &[0x30]),
        ("outer::anon(int)", &[0x30]),
        ("outer::an*", &[0x30]),
        ("anon", &[0x30]),
        ("app::fetch(std::string)", &[0x40]),
        ("fetch(std::string)", &[0x40]),
        ("fetch(int)", &[]),
        // The user's own before the library's.
        ("pull", &[0xf0]),
        ("std::deque::pull", &[0xe0]),
        ("oad", &[]),
    ] {
        assert_eq!(meant(&elf, pattern).as_deref(), Ok(addresses), "{pattern}");
    }
    assert_eq!(meant(&elf, "load").unwrap_err(), "shop::load; stock::load");
}

#[test]
fn patterns_work_on_operators() {
    let elf = cpp();
    for (pattern, addresses) in [
        ("*operator<", &[0x50u64][..]),
        ("*operator int", &[0x60]),
        ("*operator()", &[0x70]),
        ("*operator[]", &[0x80]),
        ("app::*::operator[]", &[0x80]),
        ("*::operator[]*", &[0x80]),
        ("operator<", &[0x50]),
        ("Box::operator[]", &[0x80]),
        ("app::v3::Box<int, 2>::operator*", &[0x90]),
        ("*operator*", &[0x50, 0x60, 0x70, 0x80, 0x90]),
    ] {
        assert_eq!(meant(&elf, pattern).as_deref(), Ok(addresses), "{pattern}");
    }
}

#[test]
fn a_name_that_is_there_wins_over_a_looser_reading() {
    let elf = elf(&[
        ("load", 0x10, 4),
        ("_ZN4shop4loadEv", 0x20, 4),
        ("_ZN3app4saveEv", 0x30, 4),
        ("_ZN3app2v34saveEv", 0x40, 4),
        ("_ZN3app2v34moveEv", 0x50, 4),
        ("_ZN3app5inner4moveEv", 0x60, 4),
        ("_ZN3appmlEi", 0x70, 4),
        ("_ZN3appplEi", 0x80, 4),
    ]);
    for (pattern, addresses) in [
        ("load", &[0x10u64][..]),
        ("shop::load", &[0x20]),
        ("app::save", &[0x30]),
        ("app::move", &[0x50]),
        // The multiplication; where there is none, all operators.
        ("app::operator*", &[0x70]),
        ("app::operator?", &[0x70, 0x80]),
    ] {
        assert_eq!(meant(&elf, pattern).as_deref(), Ok(addresses), "{pattern}");
    }
}

#[test]
fn patterns_leave_out_what_nobody_asked_for() {
    let elf = elf(&[
        ("_init", 0x8, 4),
        ("_ZN4shop4CartC1Ev", 0x10, 4),
        ("_ZN4shop4CartD1Ev", 0x20, 4),
        ("_ZN4shop4CartD0Ev", 0x28, 4),
        ("_ZN4shop4workEv", 0x30, 4),
        ("_ZN4shop4workEv.part.0", 0x40, 4),
        ("_ZN4shop4workEv.constprop.0", 0x50, 4),
        ("_ZN4shop4onlyEv.isra.0", 0x60, 4),
        ("_ZN4shop4workEv.cold", 0x70, 4),
    ]);
    for (pattern, addresses) in [
        ("shop::*", &[0x10u64, 0x30, 0x60][..]),
        ("*", &[0x10, 0x30, 0x60]),
        ("*~*", &[0x20, 0x28]),
        ("*.part*", &[0x40]),
        ("*.constprop.?", &[0x50]),
        ("shop::work", &[0x30, 0x40, 0x50]),
        ("_init", &[0x8]),
    ] {
        assert_eq!(meant(&elf, pattern).as_deref(), Ok(addresses), "{pattern}");
    }
    let pattern = FunctionPattern::parse("shop::*").unwrap();
    let mut candidates = Candidates::default();
    candidates.add(&pattern, 0, Whose::Own, &elf);
    let left_out = LeftOut {
        destructors: 2,
        clones: 2,
    };
    assert_eq!(candidates.left_out(), left_out);
}

#[test]
fn names_of_go_are_found_by_their_last_part() {
    let mut elf = elf(&[
        ("main.(*Store).Load", 0x10, 4),
        ("main.(*Store).Load.func1", 0x20, 4),
        ("sync.(*Map).Load", 0x30, 4),
        ("internal/runtime/atomic.(*Uint32).Load", 0x40, 4),
        ("main.main", 0x50, 4),
        ("runtime.main", 0x60, 4),
        ("main.Map[go.shape.int]", 0x70, 4),
        ("time.loadTzinfo", 0x80, 4),
    ]);
    elf.go = Some(GoProgram {
        version: Some(27),
        types: None,
    });
    for (pattern, addresses) in [
        ("Load", &[0x10u64][..]),
        ("(*Store).Load", &[0x10]),
        ("Store.Load", &[0x10]),
        ("main.Store.Load", &[0x10]),
        ("main.(*Store).Load", &[0x10]),
        ("sync.Load", &[0x30]),
        ("main", &[0x50]),
        ("Map", &[0x70]),
        ("main.Map[...]", &[0x70]),
        ("*.(?Store).Load", &[0x10]),
    ] {
        assert_eq!(meant(&elf, pattern).as_deref(), Ok(addresses), "{pattern}");
    }
}

#[test]
fn names_of_rust_are_found_by_their_last_part() {
    let elf = elf(&[
        ("_ZN4shop4main17h0123456789abcdefE", 0x10, 4),
        ("_ZN4shop6orders4load17h0123456789abcdefE", 0x20, 4),
        ("_ZN5tokio4task4load17h0123456789abcdefE", 0x30, 4),
        ("_ZN4core4task4load17h0123456789abcdefE", 0x40, 4),
        (
            "_ZN47_$LT$shop..Cart$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
            0x50,
            4,
        ),
        ("_ZN5tokio5spawn17h0123456789abcdefE", 0x60, 4),
    ]);
    for (pattern, addresses) in [
        ("load", &[0x20u64][..]),
        ("task::load", &[0x30]),
        ("shop::Cart::fmt", &[0x50]),
        ("Cart::fmt", &[0x50]),
        ("spawn", &[0x60]),
        ("main", &[0x10]),
    ] {
        assert_eq!(meant(&elf, pattern).as_deref(), Ok(addresses), "{pattern}");
    }
}
