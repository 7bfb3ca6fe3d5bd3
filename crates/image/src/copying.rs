//! Programs that copy their stacks away and back, so that several calls have the same address: greenlets.

use super::Image;

/// Whether a process that has these files mapped may copy its stacks. By the name of greenlet's extension module
/// (`greenlet/_greenlet.cpython-311-x86_64-linux-gnu.so`, before 1.0 `greenlet.so`): no file says it otherwise. gevent
/// and eventlet use it.
pub fn copies_stacks<'a>(images: impl IntoIterator<Item = &'a Image>) -> bool {
    images.into_iter().any(|image| is_greenlet(image.name()))
}

fn is_greenlet(name: &str) -> bool {
    let name = name.strip_prefix('_').unwrap_or(name);
    name.strip_prefix("greenlet.")
        .is_some_and(|rest| rest == "so" || rest.ends_with(".so"))
}

#[cfg(test)]
mod tests {
    use super::is_greenlet;

    #[test]
    fn greenlets_are_known_by_name() {
        for name in [
            "_greenlet.cpython-311-x86_64-linux-gnu.so",
            "_greenlet.abi3.so",
            "greenlet.cpython-35m-x86_64-linux-gnu.so",
            "greenlet.so",
        ] {
            assert!(is_greenlet(name), "{name}");
        }
        for name in [
            "libgreenlets.so",
            "_greenlet.py",
            "greenlet.so.bak",
            "so",
            "",
        ] {
            assert!(!is_greenlet(name), "{name}");
        }
    }
}
