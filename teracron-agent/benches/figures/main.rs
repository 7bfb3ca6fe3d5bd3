//! What `cargo xtask bench` needs of the library: xtask builds this program and runs it as a child, so that it depends
//! on no crate of the agent itself.
//!
//! The first argument says what is wanted; every answer is a line on standard output.

mod floor;
mod pack;
mod spool;

/// The API key of the test vectors.
fn api_key() -> String {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../crates/wire/tests/vectors.json")).unwrap();
    vectors["api_keys"][0]["key"].as_str().unwrap().to_owned()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("pack") => pack::pack(),
        Some("floor") => floor::floor(arguments),
        Some("spool") => spool::spool(arguments),
        // `cargo bench` and `cargo test` pass arguments of their own, which ask for nothing.
        _ => eprintln!("figures: pack, floor ARGUMENTS… or spool FOLDER COUNT"),
    }
}
