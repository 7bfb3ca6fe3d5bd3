//! A spool full of small entries, of which there are most.

use std::{fs, path::PathBuf};

use model::Kind;
use pipeline::spool::Entry;
use wire::api_key::decode;

/// Writes `FOLDER COUNT`: so many entries of the test project, then prints `written`.
pub(crate) fn spool(mut arguments: impl Iterator<Item = String>) {
    let folder = PathBuf::from(arguments.next().unwrap());
    let count: u32 = arguments.next().unwrap().parse().unwrap();
    let own = folder
        .join(decode(&super::api_key()).unwrap().slug)
        .join("0");
    fs::create_dir_all(&own).unwrap();
    for number in 0..count {
        let entry = Entry {
            kind: Kind::Metrics,
            count: 10,
            envelope: vec![number as u8; 1200],
        };
        fs::write(own.join(format!("{number:020}.sealed")), entry.to_bytes()).unwrap();
    }
    println!("written");
}
