//! As dropped.c: what rustc drops leaves no trace in the name.
use std::{fmt::Write as _, hint::black_box, io::Read as _};

#[inline(never)]
fn price(b: &u32, k: u32) -> u32 {
    black_box(&k);
    *b
}

#[inline(never)]
fn judged(b: &u32, k: u32) -> Result<u32, u32> {
    // Not the same code as above: such functions are made one.
    black_box(&(k + 1));
    if k % 3 == 0 { Err(*b) } else { Ok(k) }
}

#[inline(never)]
fn total(b: &u32, k: u32) -> u32 {
    black_box(&k);
    *b + k
}

fn main() {
    let b = black_box(9u32);
    println!("ready {}", std::process::id());
    std::io::stdin().read_exact(&mut [0; 3]).unwrap();
    let mut out = String::new();
    for i in 1..=20 {
        price(&b, i);
        writeln!(out, "{{\"call\":\"price\",\"status\":\"succeeded\",\"ret\":9}}").unwrap();
        let _ = judged(&b, i);
        let status = if i % 3 == 0 { "failed Err" } else { "succeeded" };
        writeln!(out, "{{\"call\":\"judged\",\"status\":\"{status}\"}}").unwrap();
        let ret = total(&b, i);
        writeln!(out, "{{\"call\":\"total\",\"status\":\"succeeded\",\"ret\":{ret}}}").unwrap();
    }
    print!("{out}");
    println!("done");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
