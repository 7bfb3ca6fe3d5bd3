//! Everything of the agent that needs no privilege.

#![allow(unreachable_pub)] // nothing is outside

#[path = "../support/mod.rs"]
mod support;

mod account;
mod deliver;
mod docs;
mod killed;
mod reference;
mod wire;
