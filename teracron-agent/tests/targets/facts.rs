//! Calls that panic: with a constant and with a string. A line on stdin is so many calls of each.
use std::{
    io::{BufRead as _, Write as _},
    panic::catch_unwind,
};

#[inline(never)]
fn pay_constant(n: u32) -> u32 {
    if std::hint::black_box(n) > 0 {
        panic!("card declined");
    }
    n
}

#[inline(never)]
fn pay_string(n: u32) -> u32 {
    if std::hint::black_box(n) > 0 {
        panic!("card {n} declined");
    }
    n
}

/// What others call by its plain name is Rust all the same.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C-unwind" fn pay_plain(n: u32) -> u32 {
    if std::hint::black_box(n) > 0 {
        panic!("plain declined");
    }
    n
}

fn main() {
    std::panic::set_hook(Box::new(|_| ()));
    println!("ready {}", std::process::id());
    std::io::stdout().flush().unwrap();
    for line in std::io::stdin().lock().lines() {
        for n in 1..=line.unwrap().parse().unwrap() {
            let _ = catch_unwind(|| pay_constant(n));
            let _ = catch_unwind(|| pay_string(n));
            let _ = catch_unwind(|| pay_plain(n));
        }
        println!("done");
        std::io::stdout().flush().unwrap();
    }
}
