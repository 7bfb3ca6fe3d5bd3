use super::*;

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
