//! The sandbox as its clients meet it: over HTTP, with its own runner program.
#![cfg(test)]

mod admin;
mod common;
mod conformance;
mod described;
mod end_to_end;
mod load;
mod rest;
mod webhooks;
