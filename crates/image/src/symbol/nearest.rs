//! Names that the user may have meant.

/// Suggestions that are made.
const SUGGESTIONS: usize = 5;
/// Longest name that is compared letter by letter.
const MAX_COMPARED: usize = 200;

/// The names nearest to `wanted`, best first.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted_last = last_part(wanted).to_lowercase();
    let mut scored: Vec<(usize, &str)> = Vec::new();
    for name in names {
        let score = score(wanted, &wanted_last, name);
        if let Some(score) = score {
            scored.push((score, name));
            if scored.len() > 4096 {
                scored.sort_unstable();
                scored.dedup();
                scored.truncate(SUGGESTIONS);
            }
        }
    }
    scored.sort_unstable();
    scored.dedup_by(|a, b| a.1 == b.1);
    scored
        .into_iter()
        .take(SUGGESTIONS)
        .map(|(_, name)| name)
        .collect()
}

/// Smaller is nearer; `None` is too far.
fn score(wanted: &str, wanted_last: &str, name: &str) -> Option<usize> {
    if wanted.len() > MAX_COMPARED || name.len() > MAX_COMPARED {
        return None;
    }
    // Where they are equal, only the qualification differs.
    how_near(wanted_last, &last_part(name).to_lowercase()).map(|distance| 1 + distance)
}

/// How near two words are, in letters; `None` where one was hardly meant by the other. A word that contains the other
/// is further than any that is written wrongly.
pub fn how_near(wanted: &str, word: &str) -> Option<usize> {
    if wanted.len() > MAX_COMPARED || word.len() > MAX_COMPARED {
        return None;
    }
    if word == wanted {
        return Some(0);
    }
    let allowed = (wanted.chars().count() / 3).clamp(1, 4);
    let distance = edit_distance(wanted, word, allowed);
    if distance.is_some() {
        return distance;
    }
    (wanted.len() >= 4 && word.contains(wanted)).then(|| 7 + word.len() - wanted.len())
}

/// The function's own name: without qualification, parameters and template arguments.
fn last_part(name: &str) -> &str {
    let name = name.split(['(', '<']).next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words; `None` above `limit`.
fn edit_distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut older: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(from != to))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && *from == b[j - 1] {
                best = best.min(older[j - 1] + 1);
            }
            row.push(best);
        }
        older = std::mem::replace(&mut above, row);
    }
    let distance = *above.last()?;
    (distance <= limit).then_some(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_meant() {
        let names = [
            "create_order",
            "shop::Cart::total",
            "refund_order",
            "main",
            "total_price",
        ];
        assert_eq!(nearest("creat_order", names.into_iter())[0], "create_order");
        assert_eq!(
            nearest("craete_order", names.into_iter())[0],
            "create_order"
        );
        assert_eq!(
            nearest("Cart::total", names.into_iter())[0],
            "shop::Cart::total"
        );
        assert_eq!(
            nearest("total", names.into_iter()),
            ["shop::Cart::total", "total_price"]
        );
        assert!(nearest("zzzzzz", names.into_iter()).is_empty());
    }
}
