//! Everything of the agent that needs no privilege.

#[path = "../support/mod.rs"]
mod support;

mod account;
mod deliver;
mod docs;
mod killed;
mod reference;
mod wire;
