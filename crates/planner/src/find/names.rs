//! What symbols say of themselves: parts, coroutines, futures, instances.

/// A Rust function's name without which instance of a generic one it is: `shop::store::<u8>`.
pub(super) fn without_instance(name: &str) -> &str {
    let mut depth = 0usize;
    for (place, character) in name.char_indices().rev() {
        match character {
            '>' if !name[..place].ends_with('-') => depth += 1,
            '<' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return match name[..place].strip_suffix("::") {
                        Some(owner) if name.ends_with('>') && !owner.is_empty() => owner,
                        _ => name,
                    };
                }
            }
            _ if depth == 0 => return name,
            _ => {}
        }
    }
    name
}

/// The function whose future a function may poll, by its name: `shop::charge::{{closure}}`,
/// `shop::charge::{closure#0}`.
pub(crate) fn future_owner(name: &str) -> Option<&str> {
    let (owner, last) = name.rsplit_once("::")?;
    let is_closure = last == "{{closure}}" || last.starts_with("{closure#");
    (is_closure && !owner.ends_with('}')).then_some(owner)
}

/// The coroutine whose body a symbol is: clang's `f.resume`; gcc's has `f` in the name of its parameter's
/// type, `…27_ZN4shop8checkoutEi.Frame.actor`.
pub(super) fn coroutine_of(symbol: &str) -> Option<&str> {
    if let Some(owner) = symbol.strip_suffix(".resume") {
        return Some(owner);
    }
    let before = symbol.strip_suffix(".Frame.actor")?;
    before.get(before.rfind("_Z")?..)
}

/// Whether a symbol is one of a coroutine's parts.
pub(super) fn is_of_coroutine(symbol: &str) -> bool {
    coroutine_of(symbol).is_some()
        || [".actor", ".destroy", ".cleanup"]
            .iter()
            .any(|ending| symbol.ends_with(ending))
}

/// The symbol whose cold half this is: `f.cold`, `f.cold.3`.
pub(super) fn cold_owner(symbol: &str) -> Option<&str> {
    if let Some(owner) = symbol.strip_suffix(".cold") {
        return Some(owner);
    }
    let (before, number) = symbol.rsplit_once('.')?;
    let owner = before.strip_suffix(".cold")?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(owner)
}

/// The last identifier of a name before its parameters and template arguments, which every mangled
/// form contains as it is; `None` for operators and destructors.
pub(super) fn last_word(name: &str) -> Option<String> {
    if name.starts_with('_')
        || name.contains("operator")
        || name.contains('~')
        || name.contains('{')
    {
        return None;
    }
    let name = name.split(['(', '<']).next()?;
    let name = name.rsplit(' ').next()?;
    let mut parts = name.rsplit("::");
    let last = parts.next()?.trim();
    // A constructor's name is not spelled twice.
    let word = if parts.next() == Some(last) {
        return None;
    } else {
        last
    };
    (!word.is_empty()
        && word
            .chars()
            .all(|c| c.is_alphanumeric() || c == '_' || c == '.'))
    .then(|| word.to_owned())
}
