//! Many threads that call the same function, each with arguments of its own; some calls fail.
use std::{
    hint::black_box,
    io::{BufRead as _, Write as _},
};

#[inline(never)]
fn pay(thread: i32, n: i32, who: &str) -> Result<i64, String> {
    if black_box(n) % 10 == 9 {
        return Err(format!("no money in {who}"));
    }
    Ok(i64::from(thread) * 100_000 + i64::from(n))
}

fn work(thread: i32) {
    for n in 0..1000 {
        let who = format!("thread {thread} call {n}");
        let _ = black_box(pay(black_box(thread), black_box(n), &who));
        if n % 16 == 0 {
            std::thread::yield_now();
        }
    }
}

fn main() {
    println!("ready {}", std::process::id());
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..12 {
            scope.spawn(move || work(thread));
        }
    });
    println!("done");
    std::io::stdout().flush().unwrap();
    std::io::stdin().lock().read_line(&mut line).unwrap();
}
