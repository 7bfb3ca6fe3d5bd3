//! Everything that needs root: real programs on the real kernel. One program, so that it is linked once and what is
//! compiled for it is compiled once; `cargo xtask test` runs it.

#![allow(unreachable_pub)] // nothing is outside

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod binaries;
mod blocks;
mod calls;
mod captures;
mod core;
mod deaths;
mod delivering;
mod dropped;
mod facts;
mod files;
mod following;
mod foreign;
mod futures;
mod golang;
mod harm;
mod inlined;
mod leaves;
mod names;
mod own;
mod refused;
mod reload;
mod rough;
mod said;
mod secrets;
mod ships;
mod stacks;
mod strangers;
mod switches;
mod values;
mod walls;
