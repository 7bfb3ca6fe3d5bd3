//! The user that delivers where the agent is root.

use std::path::Path;

use pipeline::own_files::{User, read_regular};

/// Its name, where the system has it: packages make it (`packaging/teracron-agent.sysusers`).
const NAME: &str = "teracron";
/// Its number where the system has none: nobody else's, so that no other process may look into it. Above what `adduser`
/// gives, below systemd's dynamic users (61184 on).
const NUMBER: u32 = 60_999;
/// Bytes of the list of users: a large system's has some hundred KiB.
const MAX_BYTES: u64 = 4 << 20;

/// The user that delivers.
pub(super) fn user() -> User {
    // Not by the C library, which would ask the network where the system says so.
    let users = read_regular(Path::new("/etc/passwd"), MAX_BYTES).unwrap_or_default();
    find(&String::from_utf8_lossy(&users)).unwrap_or(User {
        user: NUMBER,
        group: NUMBER,
    })
}

/// Users whose spool is taken over: of runs before the system had a user for it, or after it had one.
pub(super) fn former() -> Vec<u32> {
    vec![NUMBER]
}

/// Finds it in passwd(5): `name:password:user:group:…`.
fn find(users: &str) -> Option<User> {
    let mut fields = users
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next() == Some(NAME)).then_some(fields))?
        .skip(1);
    let user = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // Root's own would be no wall.
    (user != 0 && group != 0).then_some(User { user, group })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_found_by_its_name() {
        let before = "root:x:0:0:root:/root:/bin/sh\nteracron2:x:5:5::/:/bin/sh\n";
        let of = |line: &str| find(&format!("{before}{line}\nx:y")).map(|it| (it.user, it.group));
        assert_eq!(
            of("teracron:x:998:997:Agent:/:/bin/false"),
            Some((998, 997))
        );
        for strange in [
            "",
            "teracron:x:0:5::/:",
            "teracron:x:5:0::/:",
            "teracron:x:z:5",
            "teracron",
        ] {
            assert_eq!(of(strange), None, "{strange}");
        }
    }

    proptest! {
        #[test]
        fn no_list_is_too_strange(users in "(teracron|a|:|[0-9]{1,12}|\n|\\PC){0,40}") {
            let _ = find(&users);
        }
    }
}
